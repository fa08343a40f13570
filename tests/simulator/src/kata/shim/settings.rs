//! What a test says about the sandboxes that a shim simulates: the file that containerd names in the runtime handler's
//! option `ConfigPath`, where a real shim finds Kata's configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::kata::kind::{Hypervisor, Runtime};
use crate::kata::plan::SandboxPlan;

/// As many containers fit into a guest.
const CAPACITY: usize = 8;

/// The settings, which a test and its shims share: with them the test knows what is true in every guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The directory that stands for `/run` as far as Kata has something in it. It must be there.
    pub run: PathBuf,
    /// As whose shim it behaves.
    pub runtime: Runtime,
    /// When time began in all guests, in seconds since 1970: a tick is a second since then.
    pub born: u64,
}

impl Settings {
    /// Settings under which time begins now.
    #[must_use]
    pub fn new(run: &Path, runtime: Runtime) -> Self {
        Self { run: run.to_owned(), runtime, born: now().as_secs() }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or is not one of ours.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("settings in {}", path.display()))
    }

    /// Writes a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        fs::write(path, serde_json::to_string(self)?).with_context(|| format!("write {}", path.display()))
    }

    /// What every sandbox is like, before it has containers.
    #[must_use]
    pub fn plan(&self) -> SandboxPlan {
        let plan = SandboxPlan::new(self.runtime, Hypervisor::CloudHypervisor);
        // containerd's snapshot reaches the guest by virtio-fs, so it has no disks.
        plan.under_containerd().with_containers([]).capacity(CAPACITY).disks(0)
    }

    /// The tick of this moment.
    #[must_use]
    pub fn tick(&self) -> u64 {
        now().as_secs().saturating_sub(self.born)
    }

    /// Where shims note what was asked of their sandboxes and must not have been, a line each. There is no such file
    /// as long as all is well.
    #[must_use]
    pub fn violations(&self) -> PathBuf {
        self.run.join("violations")
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("kata.json");
        let settings = Settings::new(directory.path(), Runtime::Go);
        settings.write(&path)?;
        assert_eq!(Settings::read(&path)?, settings);
        fs::write(&path, r#"{"run":"/run","runtime":"rust","born":1,"else":2}"#)?;
        assert!(Settings::read(&path).is_err());
        Ok(())
    }
}
