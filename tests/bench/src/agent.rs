//! The release binary as a child process: what it says over HTTP, and what the kernel says of it.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// Its log.
const LOG: &str = "log";

/// How long anything of the agent may take here: valgrind slows it down fiftyfold.
const PATIENCE: Duration = Duration::from_secs(180);

/// A running agent. Ended when dropped.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    address: String,
    http: ureq::Agent,
    /// What it is asked for as `Accept-Encoding`, `identity` or `gzip`.
    encoding: &'static str,
    /// Where it keeps its log.
    directory: tempfile::TempDir,
}

/// What one scrape took of the client's time, and what came of it.
#[derive(Debug)]
pub struct Scrape {
    /// From the request to the last byte.
    pub wall: Duration,
    /// The body.
    pub body: Vec<u8>,
}

impl Agent {
    /// Starts the agent, by itself or under a tool that is given with its arguments.
    pub fn start(program: &Path, under: &[String], flags: &[String]) -> anyhow::Result<Self> {
        let ours = ["--listen-address", "127.0.0.1:0", "--max-age-secs", "0"].map(str::to_owned);
        let mut agent = Self::run(program, under, &[&ours, flags].concat())?;
        let log = agent.directory.path().join(LOG);
        agent.address = until("it listens", || Ok(listening(&log)?))?;
        Ok(agent)
    }

    fn run(program: &Path, under: &[String], arguments: &[String]) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("leash").args(under).arg(program).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(directory.path().join(LOG))?);
        let child = command.spawn().with_context(|| format!("start {}", program.display()))?;
        let http = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).build();
        Ok(Self { child, address: String::new(), http: http.new_agent(), encoding: "identity", directory })
    }

    /// Another program that serves metrics, at an address that it is told.
    pub fn other(program: &Path, flags: &[String], address: SocketAddr) -> anyhow::Result<Self> {
        let mut agent = Self::run(program, &[], flags)?;
        agent.address = address.to_string();
        until("it answers", || Ok(agent.get("/metrics").is_ok().then_some(())))?;
        Ok(agent)
    }

    /// Has it compress what it answers from now on, as Prometheus does.
    pub fn compressing(mut self) -> Self {
        self.encoding = "gzip";
        self
    }

    /// Waits until it is ready, asking as often as it can.
    pub fn wait_until_ready(&self) -> anyhow::Result<()> {
        until("/readyz answers 200", || Ok((self.status("/readyz")? == 200).then_some(())))
    }

    fn status(&self, path: &str) -> anyhow::Result<u16> {
        Ok(self.http.get(format!("http://{}{path}", self.address)).call()?.status().as_u16())
    }

    /// Asks for a path.
    pub fn get(&self, path: &str) -> anyhow::Result<Scrape> {
        let started = Instant::now();
        let request = self.http.get(format!("http://{}{path}", self.address));
        let request = request.header("X-Prometheus-Scrape-Timeout-Seconds", "30");
        let mut response = request.header("Accept-Encoding", self.encoding).call()?;
        ensure!(response.status() == 200, "GET {path}: {}", response.status());
        let body = response.body_mut().with_config().limit(256 << 20).read_to_vec()?;
        Ok(Scrape { wall: started.elapsed(), body })
    }

    /// The process the agent runs in.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Nanoseconds of CPU of each of its threads so far.
    pub fn cpu(&self) -> anyhow::Result<Cpu> {
        let mut threads = Vec::new();
        for thread in fs::read_dir(format!("/proc/{}/task", self.pid()))?.flatten() {
            let path = thread.path().join("schedstat");
            // A thread may end while they are counted.
            let Ok(text) = fs::read_to_string(&path) else { continue };
            let run = text.split(' ').next().and_then(|word| word.parse().ok());
            threads.push((thread.file_name(), run.with_context(|| format!("{} is {text:?}", path.display()))?));
        }
        Ok(Cpu { threads })
    }

    /// A number of `/proc/<pid>/status`, in kB where it is a size.
    pub fn status_of(&self, key: &str) -> anyhow::Result<u64> {
        field(&Path::new("/proc").join(self.pid().to_string()).join("status"), key)
    }

    /// How often its threads have gone to sleep of their own accord, each of which a wake-up followed; by thread name.
    pub fn sleeps(&self) -> anyhow::Result<Vec<(String, u64)>> {
        let mut all = Vec::new();
        for thread in fs::read_dir(format!("/proc/{}/task", self.pid()))?.flatten() {
            let name = fs::read_to_string(thread.path().join("comm"))?.trim().to_owned();
            all.push((name, field(&thread.path().join("status"), "voluntary_ctxt_switches")?));
        }
        Ok(all)
    }

    /// The files it holds open, sockets and the like left out.
    pub fn held(&self) -> anyhow::Result<Vec<PathBuf>> {
        let links = fs::read_dir(format!("/proc/{}/fd", self.pid()))?.flatten();
        let links = links.filter_map(|entry| fs::read_link(entry.path()).ok());
        // Its log is not read, and what the kernel has no path for is no file.
        Ok(links.filter(|path| path.is_absolute() && is_read(path)).collect())
    }
}

fn is_read(path: &Path) -> bool {
    let of_kernel = path.starts_with("/proc") || path.starts_with("/sys");
    let simulated = path.components().any(|part| part.as_os_str() == "proc" || part.as_os_str() == "cgroup");
    (of_kernel || simulated) && fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
}

impl Drop for Agent {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // Under valgrind an end in order writes what was counted.
            kill_process(pid, Signal::TERM).ok();
        }
        let ended = until("it ends", || Ok(self.child.try_wait()?));
        if ended.is_err() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// Becomes another program, without environment, that ends when the process which has started it does.
pub fn become_leashed(command: &[String]) -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let (program, arguments) = command.split_first().context("no program")?;
    // Only tools are looked for by name.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let error = Command::new(program).args(arguments).env_clear().env("PATH", path).exec();
    Err(error).with_context(|| format!("become {program}"))
}

/// CPU time by thread.
#[derive(Debug)]
pub struct Cpu {
    threads: Vec<(std::ffi::OsString, u64)>,
}

impl Cpu {
    /// Nanoseconds since then; `None` if a thread has ended in between, with whatever it had used.
    pub fn since(&self, before: &Self) -> Option<u64> {
        let used = |(id, was): &(std::ffi::OsString, u64)| {
            let (_, is) = self.threads.iter().find(|(other, _)| other == id)?;
            Some(is - was)
        };
        let known: Option<u64> = before.threads.iter().map(used).sum();
        let is_new = |id| before.threads.iter().all(|(other, _)| other != id);
        Some(known? + self.threads.iter().filter(|(id, _)| is_new(id)).map(|(_, run)| run).sum::<u64>())
    }
}

fn field(path: &Path, key: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let number = value.and_then(|value| value.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("no {key} in {}", path.display()))
}

/// The address in the line `… msg=listening address=127.0.0.1:40123`.
fn listening(log: &Path) -> std::io::Result<Option<String>> {
    let text = fs::read_to_string(log)?;
    let line = text.split_inclusive('\n').find(|line| line.contains("listening") && line.ends_with('\n'));
    Ok(line.and_then(|line| line.split("address=").nth(1)).map(|rest| rest.trim_matches(['"', '\n', ' ']).to_owned()))
}

/// Asks until there is a value.
fn until<T>(what: &str, mut ready: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        if let Some(value) = ready()? {
            return Ok(value);
        }
        if started.elapsed() > PATIENCE {
            bail!("not within {PATIENCE:?}: {what}");
        }
        thread::sleep(Duration::from_micros(500));
    }
}
