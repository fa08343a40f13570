//! The sample cgroup trees of `tests/fixtures/cgroup-trees.tar.gz`.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;
use tempfile::TempDir;

/// The unpacked archive. Its files vanish when it is dropped.
pub struct Trees {
    directory: TempDir,
}

impl Trees {
    pub fn unpack() -> Self {
        let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cgroup-trees.tar.gz");
        let file = BufReader::new(File::open(&archive).expect("the fixture is there"));
        let directory = tempfile::tempdir().expect("a temporary directory");
        tar::Archive::new(GzDecoder::new(file)).unpack(directory.path()).expect("unpack the fixture");
        Self { directory }
    }

    /// A file or directory of the archive.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("cgroup-trees").join(name)
    }

    /// Copies a directory of the archive to `to`, which need not be there.
    pub fn place(&self, name: &str, to: &Path) {
        copy(&self.path(name), to);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap_or_else(|error| panic!("make {}: {error}", to.display()));
    let entries = fs::read_dir(from).unwrap_or_else(|error| panic!("list {}: {error}", from.display()));
    for entry in entries {
        let entry = entry.expect("a directory can be listed to its end");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("the type of an entry").is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).unwrap_or_else(|error| panic!("copy to {}: {error}", to.display()));
        }
    }
}
