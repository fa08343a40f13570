//! A file of the node that whoever reads it cannot get past until the test lets them: what a read does that hangs in
//! the kernel.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags};

/// How long the agent may take to come by.
const PATIENCE: Duration = Duration::from_secs(20);

/// A named pipe in the file's place. Opening it for reading waits for a writer, and reading it for the writer's words.
pub struct Gate {
    path: PathBuf,
    pipe: PathBuf,
    text: Vec<u8>,
    reader: Option<File>,
}

impl Gate {
    /// Closes the way past a file that is there.
    pub fn close(path: &Path) -> Self {
        let text = fs::read(path).expect("the file is there");
        let (pipe, new) = (path.with_extension("gate"), path.with_extension("new"));
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("make a named pipe");
        // A second name for the pipe, so that the first can be given back to the file while someone waits.
        fs::hard_link(&pipe, &new).expect("link the pipe");
        fs::rename(&new, path).expect("put the pipe in the file's place");
        Self { path: path.to_owned(), pipe, text, reader: None }
    }

    /// Waits until someone stands before the gate, and keeps them there.
    #[track_caller]
    pub fn wait_for_reader(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).expect("a small flag");
        while self.reader.is_none() {
            // Fails for as long as nobody has the other end.
            self.reader = OpenOptions::new().write(true).custom_flags(flags).open(&self.pipe).ok();
            assert!(Instant::now() < deadline, "nobody reads {}", self.path.display());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Lets whoever stands there through, and all who come after.
    #[track_caller]
    pub fn open(mut self) {
        self.wait_for_reader();
        self.put_back();
        self.say();
    }

    /// Lets whoever stands there through; nobody will come after them, because the file is gone.
    #[track_caller]
    pub fn let_go(mut self) {
        self.wait_for_reader();
        self.say();
    }

    /// Says the file's words. Who reads at an offset, as from a file that is held open, learns that a pipe has none, and
    /// leaves without listening.
    fn say(&mut self) {
        let mut reader = self.reader.take().expect("someone waits");
        match reader.write_all(&self.text) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => panic!("a pipe takes a page: {error}"),
            _ => {}
        }
    }

    fn put_back(&self) {
        let new = self.path.with_extension("new");
        fs::write(&new, &self.text).expect("write the file");
        fs::rename(&new, &self.path).expect("put the file back");
    }
}
