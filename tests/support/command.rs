//! The real binary, run to its end.

use std::ffi::OsStr;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::exposition::Page;

/// How long a command may take on a slow machine under load.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a command left behind.
#[derive(Debug)]
pub struct Outcome {
    /// `None` after a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `kata-pulse` with these arguments. No environment variable reaches it.
#[track_caller]
pub fn kata_pulse<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Outcome {
    kata_pulse_in(&[], arguments)
}

/// Runs `kata-pulse` with these arguments and environment variables and no others.
#[track_caller]
pub fn kata_pulse_in<S: AsRef<OsStr>>(environment: &[(&str, &str)], arguments: impl IntoIterator<Item = S>) -> Outcome {
    // Files and not pipes: a full pipe would stop the command while nobody reads.
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (stdout, stderr) = (directory.path().join("stdout"), directory.path().join("stderr"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_kata-pulse"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(fs::File::create(&stdout).expect("a file for standard output"))
        .stderr(fs::File::create(&stderr).expect("a file for standard error"))
        .spawn()
        .expect("start kata-pulse");
    let read = |path| String::from_utf8(fs::read(path).expect("output")).expect("UTF-8");
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait for kata-pulse") {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().expect("kill kata-pulse");
            child.wait().expect("wait for kata-pulse");
            panic!("not ended after {PATIENCE:?}; it said:\n{}{}", read(&stdout), read(&stderr));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Outcome { code: status.code(), stdout: read(&stdout), stderr: read(&stderr) }
}

impl Outcome {
    /// Asserts the exit code.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "standard output:\n{}\nstandard error:\n{}", self.stdout, self.stderr);
        self
    }

    /// Standard output as an exposition, parsed strictly.
    #[track_caller]
    pub fn page(&self) -> Page {
        Page::parse(&self.stdout).unwrap_or_else(|fault| panic!("{fault}"))
    }
}
