//! A node that was recorded once: the files of its host, and what its container runtime said.
//!
//! The fixture is `tests/fixtures/mixed-node-cgroup2.tar.gz`; its `truth.md` says what ran on the node, and
//! `tests/fixtures/SOURCE.md` where it comes from. An archive holds only regular files, so the rest of a
//! host is put back while unpacking, see [`RecordedNode::unpack`].

mod links;
mod listing;
mod replies;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::Context;
use flate2::bufread::GzDecoder;
use serde::Deserialize;
use tempfile::TempDir;

use crate::cri::Node;

/// The name of the fixture and of the directory in it.
const FIXTURE: &str = "mixed-node-cgroup2";

/// Which of the two moments, 30.0 s apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capture {
    /// The first.
    T0,
    /// 30.0 s later.
    T1,
}

impl Capture {
    /// Both, in the order of time.
    pub const ALL: [Self; 2] = [Self::T0, Self::T1];

    fn directory(self) -> &'static str {
        match self {
            Self::T0 => "t0",
            Self::T1 => "t1",
        }
    }
}

/// A pod of the recorded node, as `pods.json` states it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RecordedPod {
    /// The pod's name.
    pub name: String,
    /// Its namespace.
    #[serde(rename = "ns")]
    pub namespace: String,
    /// Its uid.
    pub uid: String,
    /// `guaranteed`, `burstable` or `besteffort`.
    pub qos: String,
    /// The runtime handler; empty for the default one.
    pub handler: String,
    /// The sandbox id.
    pub sandbox: String,
    /// Its address.
    pub ip: String,
    /// Its cgroup.
    pub cgroup_parent: String,
    /// Container ids by container name.
    pub containers: BTreeMap<String, String>,
}

/// The unpacked recording. Its files vanish when it is dropped.
#[derive(Debug)]
pub struct RecordedNode {
    directory: TempDir,
}

impl RecordedNode {
    /// Unpacks the fixture into a new temporary directory and completes both host roots:
    ///
    /// - The links below `proc/<pid>/` (`ns/net -> net:[4026532198]`, `exe`, `fd/7 -> socket:[14008]`) are
    ///   made from the `*.readlinks` files that stand for them. They point nowhere or into the host of the
    ///   test, so they are there to be read and counted, not followed; `cwd` and `root` are left out,
    ///   because a path through them would leave the fixture unnoticed.
    /// - Whatever `run/*.listing.txt` and `var/log/pods.listing.txt` name and the archive does not hold is
    ///   made: directories, links, FIFOs, sockets nobody listens at, and files that were empty. A file that
    ///   had content nobody recorded stays absent.
    ///
    /// # Errors
    /// When the archive is missing or damaged, or the temporary directory cannot be written.
    pub fn unpack() -> anyhow::Result<Self> {
        let archive = fixtures().join(format!("{FIXTURE}.tar.gz"));
        // Paths in the recording are long and a Unix socket's must stay below 108 bytes: keep this one short.
        let directory = tempfile::Builder::new().prefix("kp").tempdir().context("make a temporary directory")?;
        unpack_archive(&archive, directory.path()).with_context(|| format!("unpack {}", archive.display()))?;
        let node = Self { directory };
        for capture in Capture::ALL {
            let root = node.root(capture);
            links::restore(&root.join("proc"))?;
            listing::restore(&root, "run")?;
            listing::restore(&root, "var/log")?;
        }
        Ok(node)
    }

    /// The root of the recorded host: `proc`, `sys`, `run` and `var`.
    #[must_use]
    pub fn root(&self, capture: Capture) -> PathBuf {
        self.capture(capture).join("root")
    }

    /// Everything recorded at that moment: `root`, `cri`, `task`, `kata`, `statfs.json`, `timeline.json`.
    #[must_use]
    pub fn capture(&self, capture: Capture) -> PathBuf {
        self.directory.path().join(FIXTURE).join(capture.directory())
    }

    /// What the container runtime said, ready to be served. Status replies were recorded at the first moment
    /// and serve both. The runtime was containerd 1.6, which has no event stream.
    ///
    /// # Errors
    /// When a reply is missing or cannot be decoded.
    pub fn cri(&self, capture: Capture) -> anyhow::Result<Node> {
        replies::load(&self.capture(capture).join("cri"), &self.capture(Capture::T0).join("cri"))
    }

    /// The pods that ran, from the recorder's own notes rather than from any reply.
    ///
    /// # Errors
    /// When `pods.json` is missing or is not what it was.
    pub fn pods(&self) -> anyhow::Result<Vec<RecordedPod>> {
        let path = self.directory.path().join(FIXTURE).join("pods.json");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))
    }
}

/// `tests/fixtures` beside this crate.
fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

fn unpack_archive(archive: &Path, into: &Path) -> anyhow::Result<()> {
    let file = BufReader::new(File::open(archive)?);
    let mut entries = tar::Archive::new(GzDecoder::new(file));
    // Thousands of times are not worth a system call each; nothing reads them.
    entries.set_preserve_mtime(false);
    entries.unpack(into)?;
    Ok(())
}
