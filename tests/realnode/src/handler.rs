//! Runtime handlers besides runc's: a shim of the test's own, which containerd starts for the pods that ask for it.

use std::path::{Path, PathBuf};

/// What containerd is told of a handler, and pods ask for by its name.
#[derive(Clone, Debug)]
pub struct Handler {
    pub(crate) name: String,
    runtime_type: String,
    shim: PathBuf,
}

impl Handler {
    /// A handler of this name and type, such as `kata` and `io.containerd.kata.v2`, whose shim is this program. Its file
    /// must have the name that containerd makes of the type, here `containerd-shim-kata-v2`: containerd 1.6 reads a
    /// `runtime_path` and looks in its PATH all the same.
    pub fn new(name: &str, runtime_type: &str, shim: impl Into<PathBuf>) -> Self {
        Self { name: name.to_owned(), runtime_type: runtime_type.to_owned(), shim: shim.into() }
    }

    /// Where containerd has to look for the shim.
    pub(crate) fn directory(&self) -> Option<&Path> {
        self.shim.parent()
    }

    /// The part of containerd's configuration. The shim is given the path of its own configuration, whether or not
    /// there is such a file.
    pub(crate) fn configuration(&self, path: &Path) -> String {
        let Self { name, runtime_type, .. } = self;
        format!(
            r#"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}]
runtime_type = "{runtime_type}"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}.options]
ConfigPath = "{path}"
"#,
            path = path.display(),
        )
    }
}
