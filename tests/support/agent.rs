//! The real binary under test, driven as Prometheus and the kubelet drive it: HTTP on a port of its own choice, and
//! signals.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::exposition::Page;

/// How long start and end may take on a slow machine under load.
const PATIENCE: Duration = Duration::from_secs(20);

/// What `Content-Type` says of the text format 0.0.4.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4";

/// A running agent. Dropping it kills it, and shows its log if the test fails.
pub struct Agent {
    child: Child,
    address: SocketAddr,
    log: Log,
    http: ureq::Agent,
}

/// An HTTP response, whatever its status.
pub struct Answer {
    pub status: u16,
    /// By name in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    /// The value of a header, empty without it.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

impl Agent {
    /// Starts the agent with these arguments and waits until it is ready. No environment variable reaches it, so
    /// that a developer's settings change no test.
    #[track_caller]
    pub fn start<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Self {
        Self::start_in(&[], arguments)
    }

    /// The same, with these environment variables and no others.
    #[track_caller]
    pub fn start_in<S: AsRef<OsStr>>(environment: &[(&str, &str)], arguments: impl IntoIterator<Item = S>) -> Self {
        let agent = Self::launch_in(environment, arguments);
        agent.wait_until("/readyz answers 200", PATIENCE, || agent.get("/readyz").status == 200);
        agent
    }

    /// The same, started by another program that becomes it: `setpriv` with its options, or `sh -c` with a script that
    /// ends in `exec "$0" "$@"`.
    #[track_caller]
    pub fn start_by<S: AsRef<OsStr>>(
        launcher: &[&str],
        environment: &[(&str, &str)],
        arguments: impl IntoIterator<Item = S>,
    ) -> Self {
        let agent = Self::launch(launcher, environment, arguments);
        agent.wait_until("/readyz answers 200", PATIENCE, || agent.get("/readyz").status == 200);
        agent
    }

    /// The same, waiting only until it listens: for who must ask in another way whether it is ready.
    #[track_caller]
    pub fn launch_in<S: AsRef<OsStr>>(environment: &[(&str, &str)], arguments: impl IntoIterator<Item = S>) -> Self {
        Self::launch(&[], environment, arguments)
    }

    #[track_caller]
    fn launch<S: AsRef<OsStr>>(
        launcher: &[&str],
        environment: &[(&str, &str)],
        arguments: impl IntoIterator<Item = S>,
    ) -> Self {
        let log = Log::new();
        let words: Vec<&str> = launcher.iter().copied().chain([env!("CARGO_BIN_EXE_kata-pulse")]).collect();
        let child = Command::new(words[0])
            .args(&words[1..])
            .args(["--listen-address", "127.0.0.1:0"])
            .args(arguments)
            .env_clear()
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.stderr())
            .spawn()
            .expect("start kata-pulse");
        let http = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build()
            .new_agent();
        // Until the port is known the address is a placeholder; an early failure already drops the agent properly.
        let mut agent = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)), log, http };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = agent.child.try_wait().expect("wait for the agent").is_some();
            if let Some(address) = agent.log().iter().find_map(|line| listening_address(line)) {
                agent.address = address;
                return agent;
            }
            assert!(!ended && Instant::now() < deadline, "the agent says no address to listen on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The agent's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Processor time that the agent has used.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("the agent lives");
        let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
        let ticks = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("ticks"));
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }

    /// Bytes of memory that the agent has in use.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the agent lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    /// All lines that the agent has logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// What the agent's descriptors stand for.
    pub fn open_files(&self) -> Vec<String> {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("the agent lives");
        let paths = descriptors.flatten().filter_map(|descriptor| std::fs::read_link(descriptor.path()).ok());
        paths.map(|path| path.to_string_lossy().into_owned()).collect()
    }

    /// Asks for a path, with query if it has one.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[])
    }

    /// Asks for a path with request headers.
    #[track_caller]
    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.http.get(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = request.call().unwrap_or_else(|error| panic!("GET {path}: {error}"));
        let headers = response.headers().iter();
        let headers = headers
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
        let (status, headers) = (response.status().as_u16(), headers.collect());
        let body = response.body_mut().with_config().limit(64 << 20).read_to_vec();
        let body = body.unwrap_or_else(|error| panic!("body of {path}: {error}"));
        Answer { status, headers, body }
    }

    /// Asks for a path that must answer with an exposition in the text format, and parses it strictly.
    #[track_caller]
    pub fn page(&self, path: &str) -> Page {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "GET {path}: {}", answer.text());
        let content_type = answer.header("content-type");
        assert!(content_type.starts_with(TEXT_FORMAT), "GET {path}: content type {content_type:?}");
        Page::parse(answer.text()).unwrap_or_else(|fault| panic!("GET {path}: {fault}"))
    }

    /// Asks again and again until `condition` holds.
    #[track_caller]
    pub fn wait_until(&self, what: &str, patience: Duration, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + patience;
        while !condition() {
            assert!(Instant::now() < deadline, "not after {patience:?}: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a child has a pid");
        rustix::process::kill_process(pid, signal).expect("signal the agent");
    }

    /// Asks the agent to end, as the kubelet does, and asserts its exit code.
    #[track_caller]
    pub fn stop(mut self, code: i32) {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("wait for the agent") {
                break status;
            }
            assert!(Instant::now() < deadline, "the agent ignores SIGTERM");
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(status.code(), Some(code), "the agent ended with {status}");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It has ended already if the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let lines = self.log.lines().join("\n");
            let _ = writeln!(std::io::stderr(), "the agent's log:\n{lines}");
        }
    }
}

/// The agent's standard error. It is a file, not a pipe that somebody must read: what was logged before an answer came
/// is there when the answer is.
struct Log(File);

impl Log {
    fn new() -> Self {
        Self(tempfile::tempfile().expect("a file for the log"))
    }

    fn stderr(&self) -> Stdio {
        self.0.try_clone().expect("one more descriptor").into()
    }

    /// All whole lines so far.
    fn lines(&self) -> Vec<String> {
        let mut bytes =
            vec![0; self.0.metadata().map_or(0, |log| usize::try_from(log.len()).expect("it is in memory"))];
        let read = self.0.read_at(&mut bytes, 0).expect("read the log");
        let text = String::from_utf8_lossy(&bytes[..read]);
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(str::to_owned).collect()
    }
}

/// Takes the address from a line like `… level=info msg=listening address=127.0.0.1:41873 …`.
fn listening_address(line: &str) -> Option<SocketAddr> {
    let (_, fields) = line.split_once("msg=listening")?;
    let (_, address) = fields.split_once("address=")?;
    address.split_whitespace().next()?.trim_matches('"').parse().ok()
}
