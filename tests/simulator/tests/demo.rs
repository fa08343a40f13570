//! Runs the demo without an agent, as far as this host lets it: it must build the node, and leave nothing.
//!
//! Where it cannot run (not root, cgroups not writable) it says so and exits with 2, and there is nothing
//! more to be tested.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const DEMO: &str = env!("CARGO_BIN_EXE_demo");

/// What the removal of dead processes may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// One test for the whole life: demos sweep each other's left-overs, so tests beside each other would meddle.
#[test]
fn a_demo_leaves_nothing_behind_however_it_ends() -> anyhow::Result<()> {
    let Some(line) = check()? else { return Ok(()) };
    assert!(line.starts_with("demo: ok: 4 running containers of 4 pods and 7 Kata sandboxes in cgroup v"), "{line}");

    // Asked to end.
    let mut demo = start()?;
    assert!(!traces(demo.id()).is_empty());
    demo.signal(Signal::TERM);
    assert_eq!(demo.wait()?, Some(0));
    assert_eq!(traces(demo.id()), Vec::<String>::new());

    // Killed: its processes die with it, and the next demo takes the rest away, but nothing of a live one.
    let (mut killed, mut alive) = (start()?, start()?);
    let children = children(killed.id());
    assert!(children.len() >= 8 + 18, "{children:?}");
    killed.signal(Signal::KILL);
    killed.wait()?;
    // A dead process has no executable any more, even while nobody has waited for it.
    assert!(comes_true(|| children.iter().all(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_err())));
    let before = traces(alive.id());
    check()?;
    assert_eq!(traces(killed.id()), Vec::<String>::new());
    assert_eq!(traces(alive.id()), before);
    assert!(alive.0.try_wait()?.is_none());
    alive.signal(Signal::INT);
    assert_eq!(alive.wait()?, Some(0));
    assert_eq!(traces(alive.id()), Vec::<String>::new());
    Ok(())
}

/// The line of a check; none where the demo cannot run.
fn check() -> anyhow::Result<Option<String>> {
    let output = Command::new(DEMO).args(["--no-agent", "--check"]).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(2) {
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        return Ok(None);
    }
    assert!(output.status.success(), "{stderr}");
    Ok(Some(String::from_utf8(output.stdout)?))
}

/// A running demo. Asked to end when the test fails, because it would run on and hold the test's output open.
struct Running(Child);

impl Running {
    fn id(&self) -> u32 {
        self.0.id()
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw).expect("a child has a pid");
        kill_process(pid, signal).expect("the demo runs");
    }

    fn wait(&mut self) -> anyhow::Result<Option<i32>> {
        Ok(self.0.wait()?.code())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            self.signal(Signal::TERM);
            self.0.wait().ok();
        }
    }
}

/// A demo that has built its node.
fn start() -> anyhow::Result<Running> {
    let mut demo = Command::new(DEMO).arg("--no-agent").stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let stdout = demo.stdout.take().expect("it is a pipe");
    let demo = Running(demo);
    assert!(BufReader::new(stdout).lines().any(|line| line.is_ok_and(|line| line.contains("Ctrl-C"))));
    Ok(demo)
}

/// Everything on this host that bears the demo's pid in its name.
fn traces(demo: u32) -> Vec<String> {
    let cgroup = format!("kata-pulse-demo-{demo}");
    let (link, run) = (format!("kpd{demo}-"), format!("kpd{demo}"));
    let mut parents: Vec<_> = ["/run", "/var/tmp", "/sys/class/net", "/sys/fs/cgroup"].map(Into::into).to_vec();
    parents.extend(fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path()));
    let entries = parents.iter().flat_map(|parent: &PathBuf| fs::read_dir(parent).into_iter().flatten().flatten());
    let mut traces: Vec<_> = entries
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with(&cgroup) || name.starts_with(&link) || name == run
        })
        .map(|entry| entry.path().display().to_string())
        .collect();
    traces.sort();
    traces
}

fn children(pid: u32) -> Vec<String> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().map(str::to_owned).collect()
}

fn comes_true(condition: impl Fn() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}
