//! The agent as a service of systemd: what it tells a manager that listens on a socket of the test's own. How it is
//! told of a hang takes the two minutes after which one is believed, and is tested on the installed package instead.

use std::ffi::OsString;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;

mod support;

use support::agent::Agent;
use support::host::Host;

/// How long the agent may take to say something on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A service manager that listens.
struct Manager {
    directory: TempDir,
    messages: Receiver<(Instant, String)>,
}

impl Manager {
    fn listen() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let socket = UnixDatagram::bind(directory.path().join("notify")).expect("bind the manager's socket");
        let (told, messages) = mpsc::channel();
        // Ends with the test: nobody takes the next message, or the process is over.
        std::thread::spawn(move || {
            let mut message = [0; 4096];
            while let Ok(length) = socket.recv(&mut message) {
                let text = String::from_utf8_lossy(&message[..length]).into_owned();
                if told.send((Instant::now(), text)).is_err() {
                    return;
                }
            }
        });
        Self { directory, messages }
    }

    fn path(&self) -> String {
        self.directory.path().join("notify").to_str().expect("a plain path").to_owned()
    }

    /// The next message, whatever it is.
    #[track_caller]
    fn next(&self) -> (Instant, String) {
        self.messages.recv_timeout(PATIENCE).expect("the agent says something")
    }

    /// The next message that is neither a sign of life nor a status.
    #[track_caller]
    fn next_change(&self) -> String {
        loop {
            let (_, message) = self.next();
            if !message.starts_with("WATCHDOG=") && !message.starts_with("STATUS=") {
                return message;
            }
        }
    }
}

fn start(manager: &Manager, more: &[(&str, &str)], flags: Vec<OsString>) -> Agent {
    let path = manager.path();
    let mut environment = vec![("NOTIFY_SOCKET", path.as_str())];
    environment.extend(more);
    Agent::start_in(&environment, flags)
}

#[test]
fn it_is_ready_first_and_then_says_what_it_serves() {
    let (manager, host) = (Manager::listen(), Host::v2());
    let agent = start(&manager, &[], host.flags());
    assert_eq!(manager.next().1, "READY=1\n");
    let (_, status) = manager.next();
    let address = support::wire::addresses(&agent)[0];
    assert!(status.starts_with(&format!("STATUS=serving on {address}")), "{status:?}");
    assert_eq!(status.matches('\n').count(), 1, "{status:?}");
    agent.stop(0);
}

#[test]
fn a_node_without_anything_is_ready_and_its_status_says_what_is_missing() {
    let (manager, empty) = (Manager::listen(), tempfile::tempdir().expect("a temporary directory"));
    let agent = start(&manager, &[], vec!["--host-root".into(), empty.path().into(), "-l".into(), "[::1]:0".into()]);
    assert_eq!(manager.next().1, "READY=1\n");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, status) = manager.next();
        if status.contains("; runtime: no container runtime socket found") && status.contains("[::1]:") {
            break;
        }
        assert!(Instant::now() < deadline, "the last status: {status:?}");
    }
    agent.stop(0);
}

#[test]
fn signs_of_life_come_at_half_the_interval() {
    let (manager, host) = (Manager::listen(), Host::v2());
    let limit = Duration::from_secs(1);
    let agent = start(&manager, &[("WATCHDOG_USEC", "1000000")], host.flags());
    let mut beats = Vec::new();
    while beats.len() < 7 {
        let (at, message) = manager.next();
        if message == "WATCHDOG=1\n" {
            beats.push(at);
        }
    }
    agent.stop(0);
    let mut pauses: Vec<Duration> = beats.windows(2).map(|pair| pair[1] - pair[0]).collect();
    pauses.sort();
    let (median, together) = (pauses[pauses.len() / 2], beats[6] - beats[0]);
    assert!(median < limit, "pauses {pauses:?}");
    assert!(together > 5 * limit / 2, "six pauses took {together:?} only");
}

#[test]
fn nobody_is_told_of_life_who_did_not_ask() {
    let host = Host::v2();
    // The manager asked another process: the variables were inherited.
    for asked in [&[][..], &[("WATCHDOG_USEC", "100000"), ("WATCHDOG_PID", "1")]] {
        let manager = Manager::listen();
        let agent = start(&manager, asked, host.flags());
        agent.stop(0);
        let mut said = Vec::new();
        loop {
            let (_, message) = manager.next();
            let last = message == "STOPPING=1\n";
            said.push(message);
            if last {
                break;
            }
        }
        assert!(said.iter().any(|message| message.starts_with("STATUS=")), "{said:?}");
        assert!(!said.iter().any(|message| message.contains("WATCHDOG")), "{said:?}");
    }
}

/// The monotonic clock as the manager reads it.
fn monotonic_usec() -> i128 {
    let now = clock_gettime(ClockId::Monotonic);
    i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000
}

#[test]
fn a_reload_is_told_with_its_time_and_its_end_good_or_bad() {
    let (manager, host) = (Manager::listen(), Host::v2());
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("config.yaml");
    fs::write(&file, "log-level: info\n").expect("write the configuration");
    let mut flags = host.flags();
    flags.extend(["--config".into(), file.clone().into()]);
    let agent = start(&manager, &[("WATCHDOG_USEC", "200000")], flags);
    assert_eq!(manager.next_change(), "READY=1\n");
    for content in ["log-level: debug\n", "log-levle: debug\n"] {
        fs::write(&file, content).expect("write the configuration");
        let before = monotonic_usec();
        agent.signal(Signal::HUP);
        let reloading = manager.next_change();
        assert_eq!(manager.next_change(), "READY=1\n", "after {reloading:?}");
        let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|rest| rest.strip_suffix('\n'));
        let time: i128 = time.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{reloading:?}"));
        assert!((before..=monotonic_usec()).contains(&time), "{time} is not between {before} and now");
    }
    agent.signal(Signal::TERM);
    assert_eq!(manager.next_change(), "STOPPING=1\n");
    agent.stop(0);
}

#[test]
fn a_manager_that_is_gone_stops_nothing() {
    let (manager, host) = (Manager::listen(), Host::v2());
    let path = format!("{}-gone", manager.path());
    let environment = [("NOTIFY_SOCKET", path.as_str()), ("WATCHDOG_USEC", "100000")];
    let agent = Agent::start_in(&environment, host.flags());
    agent.page("/metrics");
    agent.signal(Signal::HUP);
    agent.wait_until("the reload is over", PATIENCE, || {
        agent.log().iter().any(|line| line.contains("configuration reloaded"))
    });
    agent.page("/metrics");
    agent.stop(0);
}
