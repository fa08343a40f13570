//! A node whose kubelet has mounted volumes: the mounts are real, the node's mount table is this process' own in the
//! node's words.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kata_pulse_simulator::cri::Pod;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

use crate::support::agent::Agent;
use crate::support::node::NamedNode;

/// The node. What is mounted is unmounted before its files vanish.
pub struct Kubelet {
    mounts: Vec<PathBuf>,
    loops: Vec<String>,
    pub node: NamedNode,
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        for point in self.mounts.iter().rev() {
            let _ = unmount(point, UnmountFlags::DETACH);
        }
        for device in &self.loops {
            let _ = Command::new("losetup").args(["--detach", device]).status();
        }
    }
}

/// What `df` says of a path.
#[derive(Debug, PartialEq)]
pub struct Df {
    pub capacity: f64,
    pub used: f64,
    pub available: f64,
    pub inodes: f64,
    pub inodes_used: f64,
    pub inodes_free: f64,
}

impl Df {
    pub fn of(path: &Path) -> Self {
        let fields = "--output=size,used,avail,itotal,iused,iavail";
        let said = Command::new("df").args(["--block-size=1", fields]).arg(path).output().expect("run df");
        let text = String::from_utf8(said.stdout).expect("text");
        let row = text.lines().nth(1).unwrap_or_else(|| panic!("a row in {text:?}"));
        let numbers: Vec<f64> = row.split_whitespace().map(|word| word.parse().expect("a number")).collect();
        let [capacity, used, available, inodes, inodes_used, inodes_free] = numbers[..] else {
            panic!("six numbers in {row:?}")
        };
        Self { capacity, used, available, inodes, inodes_used, inodes_free }
    }
}

impl Kubelet {
    pub fn start() -> Self {
        let node = NamedNode::start();
        fs::create_dir_all(node.host.path("var/lib/kubelet/pods")).expect("make the directory of pods");
        Self { mounts: Vec::new(), loops: Vec::new(), node }
    }

    /// A pod that runs.
    pub fn run(&self, name: &str) -> Pod {
        let pod = Pod::new("shop", name);
        let pid = 40 + u32::try_from(name.bytes().map(usize::from).sum::<usize>()).expect("a short name");
        self.node.run(&pod, pid, &[&pod.container("app")]);
        pod
    }

    /// A path below a pod's directory, made.
    pub fn path(&self, pod: &Pod, below: &str) -> PathBuf {
        let path = self.node.host.path(&format!("var/lib/kubelet/pods/{}/{below}", pod.pod_uid()));
        fs::create_dir_all(&path).expect("make the directory");
        path
    }

    /// Where a CSI volume is mounted, with the file beside it.
    pub fn csi(&self, pod: &Pod, volume: &str, mode: &str) -> PathBuf {
        let point = self.path(pod, &format!("volumes/kubernetes.io~csi/{volume}/mount"));
        let data = format!(
            r#"{{"attachmentID":"csi-1","driverName":"csi.test","nodeName":"n1","specVolID":"{volume}",
            "volumeHandle":"handle-of-{volume}","volumeLifecycleMode":"{mode}"}}"#
        );
        fs::write(point.with_file_name("vol_data.json"), data).expect("write vol_data.json");
        point
    }

    fn mounted(&mut self, point: &Path) {
        self.mounts.push(point.to_owned());
    }

    /// A tmpfs of so many KiB.
    pub fn tmpfs(&mut self, point: &Path, kib: u32) {
        let options = std::ffi::CString::new(format!("size={kib}k,nr_inodes=100")).expect("no NUL");
        mount("tmpfs", point, "tmpfs", MountFlags::empty(), Some(options.as_c_str())).expect("mount a tmpfs");
        self.mounted(point);
    }

    /// A loop device on an image of so many MiB.
    pub fn loop_device(&mut self, name: &str, mib: u64) -> String {
        let image = self.node.host.path(&format!("images/{name}"));
        fs::create_dir_all(image.parent().expect("a directory")).expect("make the directory");
        fs::File::create(&image).and_then(|file| file.set_len(mib << 20)).expect("make an image");
        let said = Command::new("losetup").args(["--find", "--show"]).arg(&image).output().expect("run losetup");
        let device = String::from_utf8(said.stdout).expect("text").trim().to_owned();
        assert!(device.starts_with("/dev/loop"), "losetup: {}", String::from_utf8_lossy(&said.stderr));
        self.loops.push(device.clone());
        device
    }

    /// An ext4 filesystem of so many MiB on a loop device.
    pub fn ext4(&mut self, point: &Path, mib: u64) {
        let name = point.parent().and_then(Path::file_name).and_then(|name| name.to_str()).expect("a volume's name");
        let device = self.loop_device(&format!("{name}.img"), mib);
        let made = Command::new("mkfs.ext4").args(["-q", &device]).status().expect("run mkfs.ext4");
        assert!(made.success(), "mkfs.ext4 {device}");
        mount(device.as_str(), point, "ext4", MountFlags::empty(), None).expect("mount an ext4");
        self.mounted(point);
    }

    /// A bind mount.
    pub fn bind(&mut self, from: &Path, point: &Path) {
        mount_bind(from, point)
            .unwrap_or_else(|error| panic!("bind {} to {}: {error}", from.display(), point.display()));
        self.mounted(point);
    }

    /// Makes this process' mounts the node's, and its block devices too.
    pub fn publish(&self) {
        let root = self.node.host.root().to_str().expect("text");
        let table = fs::read_to_string("/proc/self/mountinfo").expect("read the mount table");
        let of_node = |line: &&str| line.split(' ').nth(4).is_some_and(|point| point == "/" || point.starts_with(root));
        let lines: Vec<String> =
            table.lines().filter(of_node).map(|line| line.replacen(&format!(" {root}/"), " /", 1) + "\n").collect();
        self.node.host.write("proc/1/mountinfo", &lines.concat());
        let partitions = fs::read_to_string("/proc/partitions").expect("read the block devices");
        self.node.host.write("proc/partitions", &partitions);
    }

    /// The agent on this node.
    pub fn agent(&self, more: &[&str]) -> Agent {
        self.agent_in(&[], more)
    }

    pub fn agent_in(&self, environment: &[(&str, &str)], more: &[&str]) -> Agent {
        self.publish();
        self.agent_on_table(environment, more)
    }

    /// The same, on whatever mount table there is.
    pub fn agent_on_table(&self, environment: &[(&str, &str)], more: &[&str]) -> Agent {
        let mut flags: Vec<OsString> = self.node.flags();
        flags.extend(["--max-age-secs", "0"].map(Into::into));
        if !more.contains(&"--enable-collectors") {
            flags.extend(["--enable-collectors", "volume"].map(Into::into));
        }
        flags.extend(more.iter().map(Into::into));
        Agent::start_in(environment, flags)
    }
}
