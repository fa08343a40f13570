//! The node: one containerd process and the directory in which everything of its lies.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::cgroup::Cgroup;
use crate::cri::Cri;
use crate::handler::Handler;
use crate::image::{self, APP_IMAGE, PAUSE_IMAGE};
use crate::needs;
use crate::pod::{Pod, PodSpec};
use crate::traces::{self, Run};

const START_PATIENCE: Duration = Duration::from_secs(30);

/// A running node. Dropping it removes every trace of it, also when a test fails half-way.
pub struct Node {
    run: Run,
    /// Locked as long as this process lives: the sign that the run's traces are in use.
    _lock: File,
    containerd: Mutex<Option<Child>>,
    cri: Cri,
    handlers: Vec<Handler>,
}

impl Node {
    /// Starts containerd and gives it the images. Fails with the Debian package to install if the machine lacks one.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// The same, with further runtime handlers.
    pub fn start_with(handlers: &[Handler]) -> Result<Self> {
        needs::check()?;
        traces::sweep()?;
        let (run, lock) = Run::begin()?;
        let cri = Cri::new(&run.socket())?;
        let node = Self { run, _lock: lock, containerd: Mutex::new(None), cri, handlers: handlers.to_vec() };
        node.configure()?;
        for class in ["kubepods/burstable", "kubepods/besteffort"] {
            Cgroup::new(format!("{}/{class}", node.cgroup_root())).create()?;
        }
        node.start_containerd_again()?;
        node.import_images()?;
        Ok(node)
    }

    /// The directory of everything that the node has. What a test puts there goes with the node.
    pub fn directory(&self) -> PathBuf {
        self.run.directory()
    }

    /// containerd's state directory.
    pub fn state(&self) -> PathBuf {
        self.run.state()
    }

    /// Where the shim of a handler is told that its configuration is; the test writes what is to be there.
    pub fn handler_configuration(&self, name: &str) -> PathBuf {
        self.run.directory().join(format!("handler-{name}"))
    }

    /// The socket that serves CRI.
    pub fn socket(&self) -> PathBuf {
        self.run.socket()
    }

    /// The cgroup that stands for the node's root, as in `/kata-pulse-e2e-812-0`; `kubepods` lies in it.
    pub fn cgroup_root(&self) -> String {
        self.run.cgroup().path().to_owned()
    }

    /// A cgroup below the node's root, whoever made it: `kubepods/burstable`.
    pub fn cgroup(&self, path: &str) -> Cgroup {
        Cgroup::new(format!("{}/{path}", self.cgroup_root()))
    }

    /// Makes the pod's cgroup, then its sandbox, as the kubelet does.
    pub fn run_pod(&self, spec: PodSpec) -> Result<Pod<'_>> {
        Pod::run_on(self, spec)
    }

    /// Kills containerd without warning. Shims and containers live on.
    pub fn kill_containerd(&self) -> Result<()> {
        let mut containerd = self.containerd.lock().expect("no thread panicked with the lock");
        let mut child = containerd.take().context("containerd is not running")?;
        child.kill().context("kill containerd")?;
        child.wait().context("reap containerd")?;
        Ok(())
    }

    /// Starts containerd on what the killed one left, and waits until CRI and network are ready.
    pub fn start_containerd_again(&self) -> Result<()> {
        let mut containerd = self.containerd.lock().expect("no thread panicked with the lock");
        ensure!(containerd.is_none(), "containerd is running");
        let log = File::options().create(true).append(true).open(self.log_path()).context("open containerd's log")?;
        let shims =
            self.handlers.iter().filter_map(Handler::directory).map(|directory| directory.display().to_string());
        let search_path: Vec<String> = [needs::search_path()].into_iter().chain(shims).collect();
        let child = Command::new("containerd")
            .arg("--config")
            .arg(self.run.configuration())
            .env("PATH", search_path.join(":"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start containerd")?;
        let child = containerd.insert(child);
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            let Err(error) = self.cri.ready() else {
                return Ok(());
            };
            if let Some(status) = child.try_wait()? {
                bail!("containerd ended with {status}; its log ends with:\n{}", self.log_end());
            }
            if Instant::now() > deadline {
                let end = self.log_end();
                return Err(error
                    .context(format!("containerd is not ready after {START_PATIENCE:?}; its log ends with:\n{end}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The last lines of containerd's log, for the message of a failure.
    pub fn log_end(&self) -> String {
        let text = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Removes every trace of the node, and fails if one resists. Dropping does the same but cannot fail.
    pub fn finish(self) -> Result<()> {
        self.clear()
    }

    pub(crate) fn cri(&self) -> &Cri {
        &self.cri
    }

    pub(crate) fn log_directory(&self) -> PathBuf {
        self.run.directory().join("pods")
    }

    /// The digest of an image: kubelets ask for containers by digest, after they resolved the pod's reference.
    pub(crate) fn image_id(&self, reference: &str) -> Result<String> {
        self.cri.image_id(reference)?.with_context(|| format!("containerd does not know the image {reference}"))
    }

    fn log_path(&self) -> PathBuf {
        self.run.directory().join("containerd.log")
    }

    fn configure(&self) -> Result<()> {
        let network = self.run.directory().join("net.d");
        fs::create_dir(&network).context("make the CNI directory")?;
        fs::write(network.join("10-bridge.conflist"), network_configuration(&self.run))
            .context("write the CNI configuration")?;
        let mut configuration = containerd_configuration(&self.run);
        for handler in &self.handlers {
            configuration.push_str(&handler.configuration(&self.handler_configuration(&handler.name)));
        }
        fs::write(self.run.configuration(), configuration).context("write containerd's configuration")
    }

    fn import_images(&self) -> Result<()> {
        let archive = self.run.directory().join("images.tar");
        image::write_archive(&archive)?;
        let import = Command::new("ctr")
            .env("PATH", needs::search_path())
            .arg("--address")
            .arg(self.socket())
            .args(["--namespace", "k8s.io", "images", "import"])
            .arg(&archive)
            .output()
            .context("run ctr images import")?;
        let complaint = String::from_utf8_lossy(&import.stderr);
        ensure!(import.status.success(), "ctr images import: {complaint}");
        // CRI learns of imported images by containerd's events, a moment later.
        let deadline = Instant::now() + START_PATIENCE;
        for reference in [PAUSE_IMAGE, APP_IMAGE] {
            while self.cri.image_id(reference)?.is_none() {
                ensure!(Instant::now() < deadline, "CRI does not see the image {reference}");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    fn clear(&self) -> Result<()> {
        let mut containerd = self.containerd.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(mut child) = containerd.take() {
            child.kill().context("kill containerd")?;
            child.wait().context("reap containerd")?;
        }
        self.run.clear()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            use std::io::Write;
            // A test that fails already must not abort; what stays is swept by the next node that starts.
            let _ = writeln!(std::io::stderr(), "real node leaves traces: {error:#}");
        }
    }
}

fn containerd_configuration(run: &Run) -> String {
    let directory = run.directory();
    format!(
        r#"version = 2
root = "{root}"
state = "{state}"
disabled_plugins = [
  "io.containerd.internal.v1.restart",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = "{socket}"

[plugins."io.containerd.internal.v1.opt"]
path = "{opt}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
# Machines that run tests often lack CAP_SYS_RESOURCE, without which no score can be lowered.
restrict_oom_score_adj = true
disable_apparmor = true
netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{network}"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
Root = "{runc}"
"#,
        root = directory.join("root").display(),
        state = run.state().display(),
        socket = run.socket().display(),
        opt = directory.join("opt").display(),
        plugins = needs::CNI_PLUGINS,
        network = directory.join("net.d").display(),
        runc = directory.join("runc").display(),
    )
}

/// A bridge without a gateway: pods reach each other over it, and nothing of the machine's own network changes, be it
/// routes, forwarding or filters. The subnet is from the block for benchmarks (RFC 2544), which no network uses.
fn network_configuration(run: &Run) -> String {
    format!(
        r#"{{
  "cniVersion": "0.4.0",
  "name": "{name}",
  "plugins": [{{
    "type": "bridge",
    "bridge": "{bridge}",
    "isGateway": false,
    "ipMasq": false,
    "ipam": {{
      "type": "host-local",
      "dataDir": "{data}",
      "ranges": [[{{ "subnet": "198.19.{third}.0/24" }}]]
    }}
  }}]
}}
"#,
        name = run.name(),
        bridge = run.bridge(),
        data = run.directory().join("ipam").display(),
        third = run.subnet(),
    )
}
