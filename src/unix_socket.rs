//! Connecting Unix sockets whose paths may be longer than a socket address holds.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use tokio::net::UnixStream;

/// Longest path that fits into a socket address, without the final zero byte.
const MAX_PATH_BYTES: usize = 107;

/// Connects, whatever the length of the path: one that does not fit into a socket address is reached through its
/// directory. A queue that is full is an error at once, not a wait.
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    if path.as_os_str().len() <= MAX_PATH_BYTES {
        return UnixStream::connect(path).await;
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(name);
    UnixStream::connect(short).await
}
