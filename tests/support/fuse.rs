//! A filesystem of our own behind `/dev/fuse`, which stops answering when told to: an empty directory, and its size.
//!
//! ```text
//! request  u32 length, u32 opcode, u64 unique, u64 node, u32 uid, u32 gid, u32 pid, u32 reserved; then the arguments
//! reply    u32 length, i32 error, u64 unique; then the answer
//! ```

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

const GETATTR: u32 = 3;
const STATFS: u32 = 17;
const INIT: u32 = 26;
const ENOSYS: i32 = -38;

/// Blocks of 4096 bytes.
pub const BLOCKS: u64 = 1000;

/// A mounted filesystem; gone when dropped.
pub struct Fuse {
    pub point: PathBuf,
    gate: Arc<Gate>,
    _directory: Option<TempDir>,
}

#[derive(Default)]
struct Gate {
    closed: Mutex<bool>,
    opened: Condvar,
}

impl Fuse {
    /// On a directory of its own.
    pub fn mount() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut fuse = Self::mount_on(directory.path());
        fuse._directory = Some(directory);
        fuse
    }

    pub fn mount_on(point: &Path) -> Self {
        let device = File::options()
            .read(true)
            .write(true)
            .custom_flags(nonblocking())
            .open("/dev/fuse")
            .expect("open /dev/fuse, as root");
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let options = std::ffi::CString::new(options).expect("no NUL");
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("kata-pulse-hung", point, "fuse", flags, Some(options.as_c_str())).expect("mount a filesystem");
        let gate = Arc::new(Gate::default());
        let keeper = Arc::clone(&gate);
        std::thread::spawn(move || serve(device, &keeper));
        Self { point: point.to_owned(), gate, _directory: None }
    }

    /// Requests are left lying until [`Self::answer`]. Whoever waits for one can be killed; were it taken and not answered,
    /// the kernel would let nobody go.
    pub fn hang(&self) {
        *self.gate.closed.lock().expect("no panic with the lock") = true;
    }

    pub fn answer(&self) {
        *self.gate.closed.lock().expect("no panic with the lock") = false;
        self.gate.opened.notify_all();
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        self.answer();
        let _ = unmount(&self.point, UnmountFlags::DETACH);
    }
}

/// Until it is unmounted, when reading fails.
fn serve(mut device: File, gate: &Gate) {
    let mut request = vec![0; 256 << 10];
    loop {
        // Read under the lock: nothing is taken once it hangs.
        let closed = gate.closed.lock().expect("no panic with the lock");
        let open = gate.opened.wait_while(closed, |closed| *closed).expect("no panic with the lock");
        let read = device.read(&mut request);
        drop(open);
        let read = match read {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            Err(_) => return,
        };
        if read < 40 {
            return;
        }
        let number = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().expect("four bytes"));
        let unique = u64::from_ne_bytes(request[8..16].try_into().expect("eight bytes"));
        let answer = match number(4) {
            INIT => Ok(init()),
            GETATTR => Ok(attributes()),
            STATFS => Ok(sizes()),
            _ => Err(ENOSYS),
        };
        let (error, body) = answer.map_or_else(|error| (error, Vec::new()), |body| (0, body));
        let length = u32::try_from(16 + body.len()).expect("short");
        let reply = [&length.to_ne_bytes()[..], &error.to_ne_bytes(), &unique.to_ne_bytes(), &body].concat();
        if device.write_all(&reply).is_err() {
            return;
        }
    }
}

fn nonblocking() -> i32 {
    i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).expect("a small number")
}

/// Version 7.31 of the protocol, nothing special wanted.
fn init() -> Vec<u8> {
    let numbers: [u32; 16] = [7, 31, 1 << 16, 0, 0, 1 << 16, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    numbers.into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// Of the root, a directory, good for an hour.
fn attributes() -> Vec<u8> {
    let mut bytes: Vec<u8> = [3600u64, 0].into_iter().flat_map(u64::to_ne_bytes).collect();
    let long: [u64; 6] = [1, 0, 0, 0, 0, 0];
    let short: [u32; 10] = [0, 0, 0, 0o40755, 2, 0, 0, 0, 4096, 0];
    bytes.extend(long.into_iter().flat_map(u64::to_ne_bytes));
    bytes.extend(short.into_iter().flat_map(u32::to_ne_bytes));
    bytes
}

fn sizes() -> Vec<u8> {
    let long: [u64; 5] = [BLOCKS, 600, 500, 64, 60];
    let short: [u32; 10] = [4096, 255, 4096, 0, 0, 0, 0, 0, 0, 0];
    long.into_iter().flat_map(u64::to_ne_bytes).chain(short.into_iter().flat_map(u32::to_ne_bytes)).collect()
}
