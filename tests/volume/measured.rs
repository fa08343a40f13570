//! What `df` says.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;

use crate::kubelet::{Df, Kubelet};
use crate::support::exposition::Page;

fn volume(page: &Page, pod: &str, plugin: &str, volume: &str) -> Option<Df> {
    let labels = [("namespace", "shop"), ("plugin", plugin), ("pod", pod), ("volume", volume)];
    let of = |fact: &str| page.lookup(&format!("kata_pulse_volume_{fact}"), &labels);
    Some(Df {
        capacity: of("capacity_bytes")?,
        used: of("used_bytes")?,
        available: of("available_bytes")?,
        inodes: of("inodes")?,
        inodes_used: of("inodes_used")?,
        inodes_free: of("inodes_free")?,
    })
}

fn count(page: &Page, state: &str) -> f64 {
    page.value("kata_pulse_volumes", &[("state", state)])
}

#[test]
fn figures_are_those_of_df() {
    let _alone = crate::alone();
    let mut kubelet = Kubelet::start();
    let pod = kubelet.run("db");
    let data = kubelet.csi(&pod, "pvc-data", "Persistent");
    kubelet.ext4(&data, 16);
    fs::write(data.join("file"), vec![1; 3 << 20]).expect("fill it");
    let memory = kubelet.path(&pod, "volumes/kubernetes.io~empty-dir/memory");
    kubelet.tmpfs(&memory, 4096);
    fs::write(memory.join("file"), vec![1; 1 << 20]).expect("fill it");
    let page = kubelet.agent(&[]).page("/metrics");
    let of_df = Df::of(&data);
    assert!(of_df.used > 3e6 && of_df.capacity < 17e6, "{of_df:?}");
    assert_eq!(volume(&page, "db", "csi", "pvc-data"), Some(of_df));
    let of_df = Df::of(&memory);
    assert_eq!((of_df.capacity, of_df.used, of_df.inodes), (4_194_304.0, 1_048_576.0, 100.0));
    assert_eq!(volume(&page, "db", "empty-dir", "memory"), Some(of_df));
    assert_eq!((count(&page, "measured"), page.value("kata_pulse_volumes_unnamed", &[])), (2.0, 1.0));
    assert!(page.family("kubelet_volume_stats_capacity_bytes").is_none(), "nobody has said whose it is");
    assert_eq!(page.value("kata_pulse_collector_success", &[("collector", "volume")]), 1.0);
}

#[test]
fn what_lies_on_the_nodes_filesystem_has_no_figures() {
    let _alone = crate::alone();
    let mut kubelet = Kubelet::start();
    let pod = kubelet.run("web");
    kubelet.path(&pod, "volumes/kubernetes.io~empty-dir/cache");
    kubelet.path(&pod, "volumes/kubernetes.io~configmap/settings");
    kubelet.csi(&pod, "pvc-not-mounted", "Persistent");
    // These three are tmpfs on a real node.
    for below in ["projected/kube-api-access-1", "secret/tls", "downward-api/labels"] {
        let point = kubelet.path(&pod, &format!("volumes/kubernetes.io~{below}"));
        kubelet.tmpfs(&point, 64);
    }
    let page = kubelet.agent(&[]).page("/metrics");
    assert_eq!(page.matching("kata_pulse_volume_capacity_bytes", &[]).len(), 0);
    for state in ["in_guest", "left_out", "measured", "silent", "unseen"] {
        assert_eq!(count(&page, state), 0.0, "{state}");
    }
}

#[test]
fn bind_mounts_and_subpaths_are_counted_once() {
    let _alone = crate::alone();
    let mut kubelet = Kubelet::start();
    let pod = kubelet.run("app");
    let data = kubelet.csi(&pod, "pvc-shared", "Persistent");
    kubelet.tmpfs(&data, 1024);
    fs::create_dir(data.join("sub")).expect("make a directory");
    let subpath = kubelet.path(&pod, "volume-subpaths/data/app/0");
    kubelet.bind(&data.join("sub"), &subpath);
    // The kubelet's staging directory, and the same volume over itself.
    let staged = kubelet.node.host.path("var/lib/kubelet/plugins/kubernetes.io/csi/csi.test/0a/globalmount");
    fs::create_dir_all(&staged).expect("make the directory");
    kubelet.bind(&data, &staged);
    kubelet.bind(&data, &data);
    let other = kubelet.run("replica");
    let shared = kubelet.csi(&other, "pvc-shared", "Persistent");
    kubelet.bind(&data, &shared);
    let page = kubelet.agent(&[]).page("/metrics");
    let found = page.matching("kata_pulse_volume_capacity_bytes", &[]);
    let pods: Vec<Option<&str>> = found.iter().map(|sample| sample.label("pod")).collect();
    assert_eq!(pods.len(), 2, "{pods:?}");
    assert!(pods.contains(&Some("app")) && pods.contains(&Some("replica")));
    assert_eq!(count(&page, "measured"), 2.0);
}

#[test]
fn a_block_volume_has_its_devices_size() {
    let _alone = crate::alone();
    let mut kubelet = Kubelet::start();
    let pod = kubelet.run("raw");
    let device = kubelet.loop_device("raw", 8);
    let devices = kubelet.node.host.path("var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices");
    for place in [format!("publish/pvc-raw/{}", pod.pod_uid()), format!("pvc-raw/dev/{}", pod.pod_uid())] {
        let point = devices.join(place);
        fs::create_dir_all(point.parent().expect("a directory")).expect("make the directory");
        fs::write(&point, "").expect("make the file");
        kubelet.bind(device.as_ref(), &point);
    }
    let page = kubelet.agent(&[]).page("/metrics");
    let labels = [("namespace", "shop"), ("plugin", "csi"), ("pod", "raw"), ("volume", "pvc-raw")];
    assert_eq!(page.value("kata_pulse_volume_capacity_bytes", &labels), 8_388_608.0);
    assert_eq!(page.lookup("kata_pulse_volume_used_bytes", &labels), None);
    assert_eq!(page.lookup("kata_pulse_volume_inodes", &labels), None);
    assert_eq!(count(&page, "measured"), 1.0);
}

#[test]
fn a_volume_that_a_guest_mounts_is_counted_and_not_measured() {
    let _alone = crate::alone();
    let kubelet = Kubelet::start();
    let pod = kubelet.run("vm");
    kubelet.csi(&pod, "pvc-direct", "Persistent");
    let path = format!("/var/lib/kubelet/pods/{}/volumes/kubernetes.io~csi/pvc-direct/mount", pod.pod_uid());
    let directory = format!("run/kata-containers/shared/direct-volumes/{}", URL_SAFE.encode(path));
    kubelet.node.host.write(
        &format!("{directory}/mountInfo.json"),
        r#"{"volume-type":"block","device":"/dev/sdf","fstype":"ext4","metadata":{},"options":[]}"#,
    );
    let page = kubelet.agent(&[]).page("/metrics");
    assert_eq!((count(&page, "in_guest"), count(&page, "measured")), (1.0, 0.0));
    assert_eq!(page.value("kata_pulse_volumes_unnamed", &[]), 1.0);
    assert_eq!(page.matching("kata_pulse_volume_capacity_bytes", &[]).len(), 0);
}
