//! `emptyDir`s on the node's disk, held against `du`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::PATIENCE;
use crate::kubelet::Kubelet;
use crate::support::agent::Agent;
use crate::support::exposition::Page;
use crate::support::fuse::Fuse;

fn du(path: &Path, what: &str) -> Option<f64> {
    let said = Command::new("du").args(["--summarize", "--one-file-system", what]).arg(path).output().expect("run du");
    let text = String::from_utf8(said.stdout).expect("text");
    text.split_whitespace().next()?.parse().ok()
}

fn fact(page: &Page, volume: &str, fact: &str) -> Option<f64> {
    let labels = [("namespace", "shop"), ("plugin", "empty-dir"), ("pod", "web"), ("volume", volume)];
    page.lookup(&format!("kata_pulse_volume_{fact}"), &labels)
}

fn walked(agent: &Agent) -> Page {
    agent.wait_until("a walk has ended", PATIENCE, || {
        agent.page("/metrics").lookup("kata_pulse_emptydir_walk_duration_seconds", &[]).is_some()
    });
    agent.page("/metrics")
}

#[test]
fn what_an_empty_dir_on_disk_holds_is_what_du_says() {
    let _alone = crate::alone();
    let mut kubelet = Kubelet::start();
    let pod = kubelet.run("web");
    let cache = kubelet.path(&pod, "volumes/kubernetes.io~empty-dir/cache");
    fs::create_dir_all(cache.join("a/b")).expect("make directories");
    fs::write(cache.join("a/b/file"), vec![1; 3 << 20]).expect("write a file");
    fs::hard_link(cache.join("a/b/file"), cache.join("again")).expect("link it");
    symlink("/", cache.join("out")).expect("link elsewhere");
    let inside = cache.join("inside");
    fs::create_dir(&inside).expect("make a directory");
    kubelet.tmpfs(&inside, 1024);
    fs::write(inside.join("file"), vec![1; 500 << 10]).expect("write a file");
    let memory = kubelet.path(&pod, "volumes/kubernetes.io~empty-dir/memory");
    kubelet.tmpfs(&memory, 1024);
    let agent = kubelet.agent(&["--enable-collectors", "volume,emptydir"]);
    let page = walked(&agent);
    assert_eq!(fact(&page, "cache", "used_bytes"), du(&cache, "--block-size=1"));
    assert_eq!(fact(&page, "cache", "inodes_used"), du(&cache, "--inodes"));
    assert!(fact(&page, "cache", "used_bytes").is_some_and(|used| used > 3e6 && used < 4e6));
    for of_the_node in ["capacity_bytes", "available_bytes", "inodes", "inodes_free"] {
        assert_eq!(fact(&page, "cache", of_the_node), None, "{of_the_node}");
    }
    assert_eq!(fact(&page, "memory", "capacity_bytes"), Some(1_048_576.0), "asked and not walked");
    assert_eq!(page.value("kata_pulse_emptydir_walk_entries", &[]), 6.0);
    assert_eq!(page.value("kata_pulse_emptydir_walk_incomplete", &[]), 0.0);
    assert_eq!(page.value("kata_pulse_volumes", &[("state", "measured")]), 2.0);
}

#[test]
fn a_hung_filesystem_in_an_empty_dir_is_not_entered() {
    let _alone = crate::alone();
    let kubelet = Kubelet::start();
    let pod = kubelet.run("web");
    let cache = kubelet.path(&pod, "volumes/kubernetes.io~empty-dir/cache");
    fs::write(cache.join("file"), "").expect("write a file");
    let inside = cache.join("inside");
    fs::create_dir(&inside).expect("make a directory");
    let hung = Fuse::mount_on(&inside);
    hung.hang();
    let agent = kubelet.agent(&["--enable-collectors", "emptydir"]);
    let page = walked(&agent);
    assert_eq!(fact(&page, "cache", "inodes_used"), Some(2.0));
    assert_eq!(page.value("kata_pulse_emptydir_walk_incomplete", &[]), 0.0);
}

#[test]
fn a_link_in_an_empty_dirs_place_is_not_followed() {
    let _alone = crate::alone();
    let kubelet = Kubelet::start();
    let pod = kubelet.run("web");
    let elsewhere = kubelet.node.host.path("elsewhere");
    fs::create_dir_all(elsewhere.join("stolen")).expect("make a directory");
    let real = kubelet.path(&pod, "volumes/kubernetes.io~empty-dir/real");
    symlink(&elsewhere, real.with_file_name("link")).expect("put a link there");
    let other = kubelet.run("evil");
    symlink(&elsewhere, kubelet.path(&other, "volumes").join("kubernetes.io~empty-dir")).expect("put a link there");
    let agent = kubelet.agent(&["--enable-collectors", "emptydir"]);
    let page = walked(&agent);
    let found = page.matching("kata_pulse_volume_used_bytes", &[]);
    let names: Vec<Option<&str>> = found.iter().map(|sample| sample.label("volume")).collect();
    assert_eq!(names, [Some("real")]);
}
