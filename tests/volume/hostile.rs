//! Volumes that hang, vanish, or lead elsewhere.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::{fs, io};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::mount::{UnmountFlags, unmount};

use crate::PATIENCE;
use crate::kubelet::Kubelet;
use crate::support::exposition::Page;
use crate::support::fuse::{BLOCKS, Fuse};

fn capacity(page: &Page, volume: &str) -> Option<f64> {
    page.lookup("kata_pulse_volume_capacity_bytes", &[("volume", volume)])
}

fn error(page: &Page, volume: &str) -> Option<f64> {
    page.lookup("kata_pulse_volume_error", &[("volume", volume)])
}

#[test]
fn a_hung_volume_is_marked_and_costs_no_other() {
    let _alone = crate::alone();
    let mut kubelet = Kubelet::start();
    let pod = kubelet.run("db");
    let well = kubelet.csi(&pod, "pvc-well", "Persistent");
    kubelet.tmpfs(&well, 1024);
    let hung = kubelet.path(&pod, "volumes/kubernetes.io~nfs/archive");
    let fuse = Fuse::mount_on(&hung);
    // The same filesystem once more: of both only one is asked.
    let again = kubelet.path(&pod, "volumes/kubernetes.io~nfs/archive-2");
    kubelet.bind(&hung, &again);
    let agent = kubelet.agent(&[]);
    let size = Some((BLOCKS * 4096) as f64);
    let page = agent.page("/metrics");
    assert_eq!((capacity(&page, "archive"), error(&page, "archive")), (size, Some(0.0)));
    assert_eq!(page.value("kata_pulse_volume_used_bytes", &[("volume", "archive")]), 400.0 * 4096.0);
    fuse.hang();
    for scrape in 0..5 {
        let page = agent.page("/metrics");
        for volume in ["archive", "archive-2"] {
            assert_eq!((capacity(&page, volume), error(&page, volume)), (None, Some(1.0)), "scrape {scrape}, {volume}");
        }
        assert_eq!(capacity(&page, "pvc-well"), Some(1_048_576.0), "scrape {scrape}");
        assert_eq!(page.value("kata_pulse_volumes", &[("state", "silent")]), 2.0);
    }
    let log = agent.log();
    assert_eq!(log.iter().filter(|line| line.contains("does not answer") && line.contains("archive")).count(), 1);
    fuse.answer();
    agent.wait_until("the volume is told of again", PATIENCE, || {
        let page = agent.page("/metrics");
        (capacity(&page, "archive"), capacity(&page, "archive-2")) == (size, size)
    });
}

#[test]
fn a_volume_that_vanishes_costs_only_itself() {
    let _alone = crate::alone();
    let mut kubelet = Kubelet::start();
    let pod = kubelet.run("db");
    let (stays, unmounted, removed) =
        ["stays", "unmounted", "removed"].map(|name| kubelet.csi(&pod, name, "Persistent")).into();
    for point in [&stays, &unmounted, &removed] {
        kubelet.tmpfs(point, 1024);
    }
    let agent = kubelet.agent(&[]);
    assert_eq!(agent.page("/metrics").value("kata_pulse_volumes", &[("state", "measured")]), 3.0);
    // The mount table that the agent remembers still has them.
    unmount(&unmounted, UnmountFlags::empty()).expect("unmount it");
    unmount(&removed, UnmountFlags::empty()).expect("unmount it");
    fs::remove_dir_all(removed.parent().expect("the volume's directory")).expect("remove it");
    let page = agent.page("/metrics");
    assert_eq!(capacity(&page, "stays"), Some(1_048_576.0));
    for gone in ["unmounted", "removed"] {
        assert_eq!((capacity(&page, gone), error(&page, gone)), (None, None), "{gone}");
    }
    assert_eq!(page.value("kata_pulse_volumes", &[("state", "unseen")]), 2.0);
    assert_eq!(page.value("kata_pulse_collector_success", &[("collector", "volume")]), 1.0);
}

#[test]
fn links_in_the_directory_of_pods_are_not_followed() {
    let _alone = crate::alone();
    let mut kubelet = Kubelet::start();
    let pod = kubelet.run("evil");
    let elsewhere = kubelet.node.host.path("elsewhere");
    fs::create_dir_all(elsewhere.join("mount")).expect("make a directory");
    kubelet.tmpfs(&elsewhere.join("mount"), 1024);
    // The mount table says that the volume is there, and what is there is a link to the same filesystem.
    let point = kubelet.csi(&pod, "pvc-link", "Persistent");
    kubelet.tmpfs(&point, 2048);
    kubelet.publish();
    let table = fs::read_to_string(kubelet.node.host.path("proc/1/mountinfo")).expect("the mount table");
    let line = table.lines().find(|line| line.contains(" /elsewhere/mount ")).expect("the other mount");
    let volume = format!("/var/lib/kubelet/pods/{}/volumes/kubernetes.io~csi/pvc-link", pod.pod_uid());
    let agent = kubelet.agent(&[]);
    assert_eq!(capacity(&agent.page("/metrics"), "pvc-link"), Some(2_097_152.0));
    drop(agent);
    unmount(&point, UnmountFlags::empty()).expect("unmount it");
    let directory = point.parent().expect("the volume's directory");
    fs::remove_dir_all(directory).expect("remove it");
    symlink(&elsewhere, directory).expect("put a link in its place");
    let forged = line.replacen("/elsewhere/mount", &format!("{volume}/mount"), 1);
    kubelet.node.host.write("proc/1/mountinfo", &format!("{forged}\n"));
    let page = kubelet.agent_on_table(&[], &[]).page("/metrics");
    assert_eq!((capacity(&page, "pvc-link"), error(&page, "pvc-link")), (None, Some(1.0)));
}

#[test]
fn a_file_that_is_not_the_kubelets_costs_the_name_alone() {
    let _alone = crate::alone();
    let mut kubelet = Kubelet::start();
    let pod = kubelet.run("db");
    for (name, spoil) in [
        ("absent", (|file| fs::remove_file(file)) as fn(&Path) -> io::Result<()>),
        ("garbage", |file| fs::write(file, "{\"specVolID\":")),
        ("huge", |file| fs::write(file, vec![b' '; 1 << 20])),
        ("link", |file| fs::rename(file, file.with_extension("moved")).and_then(|()| symlink("vol_data.moved", file))),
        ("fifo", |file| {
            fs::remove_file(file)?;
            Ok(mknodat(CWD, file, FileType::Fifo, Mode::RUSR, 0)?)
        }),
        ("directory", |file| fs::remove_file(file).and_then(|()| fs::create_dir(file))),
    ] {
        let point = kubelet.csi(&pod, name, "Persistent");
        kubelet.tmpfs(&point, 1024);
        spoil(&point.with_file_name("vol_data.json")).expect("spoil the file");
    }
    let page = kubelet.agent(&[]).page("/metrics");
    assert_eq!(page.value("kata_pulse_volumes", &[("state", "measured")]), 6.0);
    assert_eq!(page.value("kata_pulse_volumes_unnamed", &[]), 6.0);
    assert_eq!(page.value("kata_pulse_collector_success", &[("collector", "volume")]), 1.0);
}
