//! The life of the process: how it starts with little or nothing there, takes what appears later, reloads, ends, and
//! what its commands print and exit with.

use std::ffi::OsString;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use kata_pulse_simulator::cri::{Exit, Pod};
use rustix::process::{Pid, Signal};
use serde_json::Value;

mod support;

use support::agent::Agent;
use support::command::{Outcome, kata_pulse, kata_pulse_in};
use support::exposition::Page;
use support::gate::Gate;
use support::host::Host;
use support::node::NamedNode;
use support::wire::{Wire, addresses};

/// How long the agent may take for what it does by itself.
const PATIENCE: Duration = Duration::from_secs(20);

fn start(mut flags: Vec<OsString>, more: &[&str]) -> Agent {
    flags.extend(more.iter().map(Into::into));
    Agent::start(flags)
}

/// The lines of the agent's log that hold all of these.
fn log_with(agent: &Agent, parts: &[&str]) -> Vec<String> {
    let mut lines = agent.log();
    lines.retain(|line| parts.iter().all(|part| line.contains(part)));
    lines
}

#[track_caller]
fn wait_for_log(agent: &Agent, parts: &[&str], times: usize) {
    agent
        .wait_until(&format!("{times} times {parts:?} in the log"), PATIENCE, || log_with(agent, parts).len() >= times);
}

/// A mistake is told in one line, which goes on from the program's name, and says each thing once.
#[track_caller]
fn assert_complaint(outcome: &Outcome, parts: &[&str]) {
    let lines: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("kata-pulse: ")).collect();
    let [line] = lines.as_slice() else { panic!("not one line of complaint:\n{}", outcome.stderr) };
    for part in parts {
        assert_eq!(line.matches(part).count(), 1, "{part:?} in {line:?}");
    }
    assert_eq!(outcome.stderr.lines().last(), Some(*line), "the complaint comes last");
}

#[test]
fn a_request_in_flight_is_finished_before_the_end() {
    let host = Host::v2();
    let agent = start(host.flags(), &["--max-age-secs", "0"]);
    agent.page("/metrics");
    let address = addresses(&agent)[0];
    let mut gate = Gate::close(&host.path("proc/meminfo"));
    let mut wire = Wire::connect(&agent);
    wire.ask("GET", "/metrics", &[]);
    gate.wait_for_reader();
    agent.signal(Signal::TERM);
    wait_for_log(&agent, &["msg=stopping", "signal=SIGTERM"], 1);
    agent.wait_until("nobody listens any more", PATIENCE, || TcpStream::connect(address).is_err());
    gate.open();
    let answer = wire.answer();
    assert_eq!(answer.status, 200);
    assert_eq!(Page::parse(answer.text()).expect("a whole page").value("machine_scrape_error", &[]), 0.0);
    wait_for_log(&agent, &["msg=stopped"], 1);
    agent.stop(0);
}

#[test]
fn a_collection_that_hangs_does_not_keep_the_process_alive() {
    let host = Host::v2();
    let agent = start(host.flags(), &["--max-age-secs", "0"]);
    agent.page("/metrics");
    let mut gate = Gate::close(&host.path("proc/meminfo"));
    let mut wire = Wire::connect(&agent);
    wire.ask("GET", "/metrics", &[]);
    gate.wait_for_reader();
    let started = Instant::now();
    agent.stop(0);
    let took = started.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(12)).contains(&took), "ended after {took:?}");
}

#[test]
fn both_signals_end_an_idle_agent_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let host = Host::v2();
        let agent = start(host.flags(), &[]);
        // A scraper's connection is kept open and is no reason to wait.
        agent.page("/metrics");
        let started = Instant::now();
        agent.signal(signal);
        wait_for_log(&agent, &["msg=stopped"], 1);
        agent.stop(0);
        assert!(started.elapsed() < Duration::from_secs(4), "{signal:?}: {:?}", started.elapsed());
    }
}

const RELOADED: &str = "kata_pulse_config_last_reload_successful";

#[test]
fn a_hangup_takes_the_files_new_content_and_a_broken_file_changes_nothing() {
    let host = Host::v2();
    host.v2_cgroup("kubepods/pod1");
    let file = host.path("config.yaml");
    let write = |text: &str| fs::write(&file, text).expect("write the configuration");
    write("metrics-profile: kubelet\n");
    let agent = start(host.flags(), &["--max-age-secs", "0", "--config", file.to_str().expect("a path")]);
    let families = || -> [bool; 3] {
        let page = agent.page("/metrics");
        // Of the profiles `dashboards`, `kubelet` and `all`, each has one more of these.
        ["container_memory_rss", "container_spec_cpu_shares", "container_memory_file_dirty_bytes"]
            .map(|family| page.family(family).is_some())
    };
    let reloaded = || agent.page("/metrics").value(RELOADED, &[]);
    let taken_at = || agent.page("/metrics").value("kata_pulse_config_last_reload_success_timestamp_seconds", &[]);
    let kubelet = families();
    assert_eq!((kubelet[0], kubelet[1], reloaded()), (true, true, 1.0));
    let first = taken_at();

    write("metrics-profile: dashboards\n");
    agent.signal(Signal::HUP);
    wait_for_log(&agent, &["msg=\"configuration reloaded\""], 1);
    assert_eq!((families(), reloaded()), ([true, false, false], 1.0));
    let second = taken_at();
    assert!(second > first);

    for (times, (broken, problem)) in [
        ("metrics-profile: [\n", "line 1"),
        ("scope: all\nnonsense: 1\n", "line 2"),
        ("sync-interval-secs: 0.1\n", "sync-interval-secs"),
    ]
    .into_iter()
    .enumerate()
    {
        write(broken);
        agent.signal(Signal::HUP);
        wait_for_log(&agent, &["level=error", "not reloaded"], times + 1);
        let line = log_with(&agent, &["level=error", "not reloaded"]).pop().expect("a line");
        assert!(line.contains(problem), "{broken:?}: {line}");
        assert_eq!((families(), reloaded(), taken_at()), ([true, false, false], 0.0, second), "{broken:?}");
    }
    fs::remove_file(&file).expect("remove the configuration");
    agent.signal(Signal::HUP);
    wait_for_log(&agent, &["level=error", "not reloaded", "config.yaml"], 1);
    assert_eq!((families(), reloaded()), ([true, false, false], 0.0));

    write("metrics-profile: all\n");
    agent.signal(Signal::HUP);
    wait_for_log(&agent, &["msg=\"configuration reloaded\""], 2);
    assert_eq!((families(), reloaded()), ([true, true, true], 1.0));
    assert!(taken_at() > second);
    assert_eq!(agent.page("/metrics").value("container_memory_usage_bytes", &[("id", "/kubepods/pod1")]), 33_554_432.0);
    agent.stop(0);
}

#[test]
fn a_reload_keeps_flags_addresses_and_the_count_of_kills() {
    let node = NamedNode::start();
    let web = Pod::new("shop", "web");
    let app = web.container("app");
    node.run(&web, 41, &[&app]);
    node.runtime.node().add_container(&web.container("init").exited(&Exit::oom_killed()));
    let file = node.host.path("config.yaml");
    fs::write(&file, "log-level: info\n").expect("write the configuration");
    let agent = start(
        node.flags(),
        &["--max-age-secs", "0", "--metrics-profile", "dashboards", "--config", file.to_str().expect("a path")],
    );
    let kills = |container: &str| {
        agent.page("/metrics").lookup("kata_pulse_container_oom_kills_total", &[("container", container)])
    };
    assert_eq!((kills("app"), kills("init")), (Some(1.0), Some(1.0)));

    fs::write(&file, "log-level: debug\nmetrics-profile: all\nlisten-address: 127.0.0.1:1\n").expect("write");
    agent.signal(Signal::HUP);
    wait_for_log(&agent, &["msg=\"configuration reloaded\""], 1);
    let page = agent.page("/metrics");
    assert!(page.family("container_spec_cpu_shares").is_none(), "the flag wins over the file");
    assert_eq!(page.value("container_memory_rss", &[("container", "app")]), 16_777_216.0);
    assert_eq!((kills("app"), kills("init")), (Some(1.0), Some(1.0)), "kills are not counted anew");
    assert_eq!(addresses(&agent).len(), 1);
    wait_for_log(&agent, &["level=debug"], 1);
    agent.stop(0);
}

/// An agent that is told nothing but where its configuration is.
struct Unflagged {
    child: Child,
    log: PathBuf,
}

impl Unflagged {
    fn start(configuration: &Path, log: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_kata-pulse"))
            .arg("--config")
            .arg(configuration)
            .env_clear()
            .stderr(fs::File::create(log).expect("a file for the log"))
            .spawn()
            .expect("start kata-pulse");
        Self { child, log: log.to_owned() }
    }

    /// Waits for a line that holds all of these, and gives it.
    #[track_caller]
    fn wait_for(&self, parts: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = fs::read_to_string(&self.log).expect("the log");
            // The last line may be half written.
            let mut lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            if let Some(line) = lines.find(|line| parts.iter().all(|part| line.contains(part))) {
                return line.trim_end().to_owned();
            }
            assert!(Instant::now() < deadline, "no line with {parts:?} in:\n{log}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn hang_up(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a child has a pid");
        rustix::process::kill_process(pid, Signal::HUP).expect("signal the agent");
    }
}

impl Drop for Unflagged {
    fn drop(&mut self) {
        // It has ended already if something went wrong.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_changed_listen_address_needs_a_restart_and_says_so() {
    let host = Host::v2();
    let (file, log) = (host.path("config.yaml"), host.path("log"));
    let write = |address: &str, more: &str| {
        let root = host.root().display();
        let text = format!("listen-address: {address}\nhost-root: {root}\nruntime-endpoint: none\n{more}");
        fs::write(&file, text).expect("write the configuration");
    };
    write("127.0.0.1:0", "");
    let agent = Unflagged::start(&file, &log);
    let line = agent.wait_for(&["msg=listening", "address=127.0.0.1:"]);
    let address = line.rsplit_once("address=").expect("the address").1;
    TcpStream::connect(address).expect("the agent listens where it says");

    write("127.0.0.1:1", "metrics-profile: all\n");
    agent.hang_up();
    agent.wait_for(&["level=warn", "a changed listen-address needs a restart"]);
    agent.wait_for(&["msg=\"configuration reloaded\""]);
    agent.wait_for(&["kata-pulse starts", "profile=all"]);
    TcpStream::connect(address).expect("the agent goes on listening there");
}

#[test]
fn a_port_in_use_ends_the_start_and_names_the_way_out() {
    let host = Host::v2();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let mut arguments = host.flags();
    arguments.extend(["--listen-address".into(), address.clone().into()]);
    let outcome = kata_pulse(arguments).expect_code(1);
    assert_complaint(&outcome, &[&address, "--listen-address", "Address already in use"]);
}

#[test]
fn mistakes_of_usage_exit_with_2_and_one_line() {
    for (arguments, parts) in [
        (&["--nonsense"][..], &["--nonsense"][..]),
        (&["nonsense"], &["nonsense"]),
        (&["collect", "--format", "xml"], &["xml", "--format", "prometheus, openmetrics, json"]),
        (&["--metrics-profile", "most"], &["most", "--metrics-profile", "dashboards, kubelet, all"]),
        (&["--max-age-secs", "soon"], &["soon", "--max-age-secs"]),
        (&["--max-age-secs", "-1"], &["-1"]),
        (&["--max-age-secs=-1"], &["max-age-secs", "-1"]),
        (&["--sync-interval-secs", "0.1"], &["sync-interval-secs", "0.5"]),
        (&["--listen-address", "8090"], &["listen-address", "8090"]),
        (&["--listen-address", "127.0.0.1:99999"], &["listen-address", "99999"]),
        (&["--runtime-endpoint", "tcp://1.2.3.4"], &["runtime-endpoint", "tcp://1.2.3.4"]),
        (&["--enable-collectors", "gpu"], &["enable-collectors", "gpu", "cgroup, network"]),
        (&["--enable-collectors", "fd", "--disable-collectors", "fd"], &["enable-collectors", "fd"]),
        (&["--log-level", "loud"], &["log-level", "loud"]),
        (&["--config", "/nonexistent/config.yaml"], &["/nonexistent/config.yaml", "No such file"]),
        (&["--listen-address"], &["--listen-address"]),
    ] {
        let outcome = kata_pulse(arguments);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{arguments:?}: {}", outcome.stderr);
        assert_eq!(outcome.stderr.lines().count(), 1, "{arguments:?}: {}", outcome.stderr);
        assert_complaint(&outcome, parts);
    }
}

#[test]
fn a_bad_file_exits_with_2_and_names_the_line() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("config.yaml");
    let path = file.to_str().expect("a path");
    for (text, parts) in [
        ("# a comment\nscope: [all\n", &["line 2"][..]),
        ("scope: all\nmax-age-sec: 2\n", &["line 2", "`max-age-sec`"]),
        ("scope: all\n\nscope: kata\n", &["line 3", "scope"]),
        ("log-level: info\nmax-age-secs: soon\n", &["line 2"]),
        ("metrics-profile: most\n", &["line 1", "most"]),
        ("just words\n", &["line 1"]),
        ("- a\n- b\n", &["line 1"]),
    ] {
        fs::write(&file, text).expect("write the configuration");
        for command in [&["check-config", "--config", path][..], &["--config", path]] {
            let outcome = kata_pulse(command);
            assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{text:?}: {}", outcome.stderr);
            assert_complaint(&outcome, parts);
            assert_complaint(&outcome, &[path]);
        }
    }
}

#[test]
fn a_runtime_endpoint_that_is_no_socket_is_named_once_and_costs_only_names() {
    let host = Host::v2();
    host.v2_cgroup("kubepods/pod1");
    host.write("run/runtime.sock", "");
    let socket = host.path("run/runtime.sock");
    let socket = socket.to_str().expect("a path");
    let mut flags = host.flags_but_runtime();
    flags.extend(["--runtime-endpoint".into(), socket.into()]);
    let agent = start(flags, &["--sync-interval-secs", "0.5", "--max-age-secs", "0"]);
    agent.wait_until("the agent tries again", PATIENCE, || {
        agent.page("/metrics").value("kata_pulse_cri_errors_total", &[("method", "Version")]) >= 2.0
    });
    let page = agent.page("/metrics");
    assert_eq!(page.value("container_memory_usage_bytes", &[("id", "/kubepods/pod1")]), 33_554_432.0);
    assert_eq!(page.value("kata_pulse_cri_up", &[]), 0.0);
    let warnings = log_with(&agent, &["level=warn"]);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains(&format!("{socket} is not a socket")), "{}", warnings[0]);
    let verbose = agent.get("/readyz?verbose");
    assert_eq!(verbose.status, 200);
    assert!(verbose.text().contains(&format!("[-] runtime: {socket} is not a socket")), "{}", verbose.text());
    agent.stop(0);
}

#[test]
fn without_cgroups_the_agent_serves_and_says_what_is_missing() {
    let host = Host::bare();
    host.write("file", "");
    fs::create_dir(host.path("empty")).expect("make a directory");
    for missing in [host.path("none"), host.path("file"), host.path("empty")] {
        let mount = missing.to_str().expect("a path");
        let mut flags = host.flags();
        flags.extend(["--cgroupfs", mount].map(Into::into));
        let agent = start(flags.clone(), &["--sync-interval-secs", "0.5"]);
        let page = agent.page("/metrics");
        assert_eq!(page.value("container_scrape_error", &[]), 1.0);
        assert_eq!(page.value("kata_pulse_collector_success", &[("collector", "cgroup")]), 0.0);
        assert_eq!(page.value("kata_pulse_collector_success", &[("collector", "machine")]), 1.0);
        assert_eq!(page.value("machine_memory_bytes", &[]), support::host::MEMORY_BYTES);
        let verbose = agent.get("/readyz?verbose");
        assert_eq!(verbose.status, 200, "readiness is the first discovery, whatever it found");
        let named = |check: &str| {
            verbose.text().lines().any(|line| line.starts_with(&format!("[-] {check}: ")) && line.contains(mount))
        };
        assert!(named("cgroups") && named("cgroup"), "{}", verbose.text());
        assert_eq!(log_with(&agent, &["level=warn", "cgroup tree cannot be walked", mount]).len(), 1);
        agent.stop(0);

        flags.push("collect".into());
        let outcome = kata_pulse(flags).expect_code(1);
        assert!(outcome.stderr.contains(mount), "{}", outcome.stderr);
        let page = outcome.page();
        assert_eq!(page.value("container_scrape_error", &[]), 1.0);
        assert_eq!(page.value("machine_memory_bytes", &[]), support::host::MEMORY_BYTES);
    }
}

#[test]
fn a_cgroup_mount_that_appears_later_is_picked_up() {
    let host = Host::bare();
    let mount = host.path("sys/fs/cgroup");
    let agent = start(host.flags(), &["--sync-interval-secs", "0.5", "--max-age-secs", "0"]);
    assert_eq!(agent.page("/metrics").value("container_scrape_error", &[]), 1.0);
    wait_for_log(&agent, &["level=warn", "cgroup tree cannot be walked"], 1);

    let other = Host::v2();
    other.v2_cgroup("kubepods/pod1");
    fs::create_dir_all(mount.parent().expect("a parent")).expect("make the parent");
    move_directory(&other.path("sys/fs/cgroup"), &mount);
    agent.wait_until("the pod has a row", PATIENCE, || {
        agent.page("/metrics").lookup("container_memory_usage_bytes", &[("id", "/kubepods/pod1")]) == Some(33_554_432.0)
    });
    assert_eq!(agent.page("/metrics").value("container_scrape_error", &[]), 0.0);
    wait_for_log(&agent, &["level=info", "cgroup tree is there"], 1);
    let verbose = agent.get("/readyz?verbose");
    assert!(!verbose.text().contains("[-]"), "{}", verbose.text());
    agent.stop(0);
}

/// Both are in the directory for temporary files, so that the whole tree appears at once.
fn move_directory(from: &Path, to: &Path) {
    fs::rename(from, to).expect("move within a filesystem");
}

#[test]
fn with_neither_cgroups_nor_runtime_nor_procfs_the_agent_lives() {
    let empty = tempfile::tempdir().expect("a temporary directory");
    let agent = Agent::start(["--host-root".as_ref(), empty.path().as_os_str()]);
    for path in ["/livez", "/readyz", "/healthz"] {
        let answer = agent.get(path);
        assert_eq!((answer.status, answer.text()), (200, "ok\n"), "{path}");
    }
    let verbose = agent.get("/livez?verbose");
    assert_eq!(verbose.status, 200);
    for check in ["[+] discovery ok", "[-] runtime: no container runtime socket found", "[-] cgroups: ", "ok"] {
        assert!(verbose.text().lines().any(|line| line.starts_with(check)), "{check}: {}", verbose.text());
    }
    let page = agent.page("/metrics");
    assert_eq!(page.value("machine_scrape_error", &[]), 1.0);
    assert_eq!(page.value("kata_pulse_build_info", &[]), 1.0);
    assert!(agent.page("/metrics/cadvisor").families.len() <= 3);
    assert_eq!(agent.get("/sandboxes").text(), "[]");
    agent.stop(0);
}

#[test]
fn healthcheck_tells_a_living_agent_from_none() {
    let host = Host::v2();
    let agent = start(host.flags(), &[]);
    let address = addresses(&agent)[0].to_string();
    let ask = |address: &str| kata_pulse(["healthcheck", "--listen-address", address]);
    let outcome = ask(&address).expect_code(0);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", ""));
    // As images have it: the agent listens on all addresses.
    let everywhere = format!("0.0.0.0:{}", addresses(&agent)[0].port());
    ask(&everywhere).expect_code(0);
    kata_pulse_in(&[("KATA_PULSE_LISTEN", &address)], ["healthcheck"]).expect_code(0);
    agent.stop(0);
    assert_complaint(&ask(&address).expect_code(1), &[&address, "Connection refused"]);

    // Someone else on the port, who says something else or nothing.
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = other.local_addr().expect("an address").to_string();
    let answering = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = other.accept().expect("the check connects");
        let mut request = [0; 256];
        let read = stream.read(&mut request).expect("a request");
        stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").expect("answer");
        String::from_utf8_lossy(&request[..read]).into_owned()
    });
    assert_complaint(&ask(&address).expect_code(1), &[&address, "503"]);
    assert!(answering.join().expect("no panic").starts_with("GET /livez HTTP/1."));
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let started = Instant::now();
    ask(&silent.local_addr().expect("an address").to_string()).expect_code(1);
    assert!(started.elapsed() < Duration::from_secs(4), "a silent one is not waited for: {:?}", started.elapsed());
}

#[test]
fn collectors_are_listed_with_their_state() {
    let table = |arguments: &[&str]| -> Vec<[String; 3]> {
        let arguments = arguments.iter().copied().chain(["collectors"]);
        let outcome = kata_pulse(arguments).expect_code(0);
        let cells = |line: &str| -> [String; 3] {
            let mut words = line.split_whitespace().map(str::to_owned);
            std::array::from_fn(|_| words.next().expect("three columns before the text"))
        };
        let rows: Vec<[String; 3]> = outcome.stdout.lines().map(cells).collect();
        assert_eq!(rows[0], ["COLLECTOR", "DEFAULT", "STATE"]);
        rows[1..].to_vec()
    };
    let row = |cells: [&str; 3]| cells.map(str::to_owned);
    let [cgroup, network, process, filesystem, kata, machine] =
        ["cgroup", "network", "process", "filesystem", "kata", "machine"].map(|name| row([name, "on", "on"]));
    assert_eq!(
        table(&[]),
        [
            cgroup.clone(),
            network.clone(),
            process.clone(),
            row(["fd", "off", "off"]),
            filesystem,
            kata.clone(),
            machine.clone(),
            row(["node", "off", "off"]),
            row(["volume", "off", "off"]),
            row(["emptydir", "off", "off"]),
            row(["top", "off", "off"])
        ]
    );
    assert_eq!(
        table(&["--enable-collectors", "fd", "--disable-collectors", "filesystem"]),
        [
            cgroup,
            network,
            process,
            row(["fd", "off", "on"]),
            row(["filesystem", "on", "off"]),
            kata,
            machine,
            row(["node", "off", "off"]),
            row(["volume", "off", "off"]),
            row(["emptydir", "off", "off"]),
            row(["top", "off", "off"])
        ]
    );
}

/// The value of a key in what `check-config` prints.
fn setting(yaml: &str, key: &str) -> String {
    let line = yaml.lines().find_map(|line| line.strip_prefix(&format!("{key}:")));
    line.unwrap_or_else(|| panic!("no {key} in {yaml}")).trim().to_owned()
}

#[test]
fn check_config_prints_what_is_in_force() {
    let outcome = kata_pulse(["check-config"]).expect_code(0);
    assert_eq!(
        outcome.stdout,
        "listen-address:\n- 127.0.0.1:8090\nruntime-endpoint: auto\nmetrics-interval-secs: 0.0\nmax-age-secs: 1.0\n\
         sync-interval-secs: 5.0\nlog-level: info\nlog-format: logfmt\nhost-root: /\nprocfs: /proc\n\
         cgroupfs: /sys/fs/cgroup\nrun-dir: /run\nkubelet-dir: /var/lib/kubelet\nshim-scrape: safe\nscope: all\nenable-collectors:\n- cgroup\n- network\n- process\n\
         - filesystem\n- kata\n- machine\ndisable-collectors:\n- fd\n- node\n- volume\n- emptydir\n- top\n\
         exclude-interfaces: \"\"\nnode-exclude-interfaces: \"\"\n\
         node-exclude-disks: ^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\\d+n\\d+p)\\d+$\nnode-exclude-mounts: >-\n  \
         ^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)\n\
         node-exclude-filesystems: >-\n  ^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|\
         hugetlbfs|iso9660|mqueue|nsfs|overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|erofs|sysfs|\
         tracefs|efivarfs)$\n\
         metrics-profile: kubelet\ntls-self-signed: false\n\
         auth-kubernetes: false\nvolume-claims: false\nservice-account-dir: /var/run/secrets/kubernetes.io/serviceaccount\n"
    );
    assert_eq!(outcome.stderr, "");

    // What it prints is a configuration that says the same.
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("config.yaml");
    fs::write(&file, &outcome.stdout).expect("write the configuration");
    let again = kata_pulse(["check-config".as_ref(), "--config".as_ref(), file.as_os_str()]).expect_code(0);
    assert_eq!(again.stdout, outcome.stdout);

    let moved = kata_pulse(["check-config", "--host-root", "/host", "--cgroupfs", "/cgroup"]).expect_code(0).stdout;
    let paths = ["procfs", "cgroupfs", "run-dir", "kubelet-dir"].map(|key| setting(&moved, key));
    assert_eq!(paths, ["/host/proc", "/cgroup", "/host/run", "/host/var/lib/kubelet"]);
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("config.yaml");
    fs::write(&file, "max-age-secs: 3\nsync-interval-secs: 3\nmetrics-interval-secs: 3\n").expect("write");
    let file = file.to_str().expect("a path");
    let environment = [
        ("KATA_PULSE_MAX_AGE", "2"),
        ("KATA_PULSE_SYNC_INTERVAL", "2"),
        ("KATA_PULSE_CONFIG", file),
        ("KATA_PULSE_LISTEN", "127.0.0.1:1,[::1]:2"),
        ("RUNTIME_ENDPOINT", "unix:///run/some.sock"),
        ("RUST_LOG", "warn"),
        ("KATA_PULSE_LOG_FORMAT", "json"),
        ("KATA_PULSE_HOST_ROOT", "/host"),
        ("KATA_PULSE_PROCFS", "/p"),
        ("KATA_PULSE_CGROUPFS", "/c"),
        ("KATA_PULSE_RUN_DIR", "/r"),
        ("KATA_PULSE_CONTAINERD_STATE", "/s"),
        ("KATA_PULSE_KUBELET_DIR", "/k"),
        ("KATA_PULSE_SHIM_SCRAPE", "all"),
        ("KATA_PULSE_SCOPE", "kata"),
        ("KATA_PULSE_ENABLE_COLLECTORS", "fd"),
        ("KATA_PULSE_DISABLE_COLLECTORS", "network,process,machine"),
        ("KATA_PULSE_EXCLUDE_INTERFACES", "^lxc"),
        ("KATA_PULSE_NODE_EXCLUDE_INTERFACES", "^veth"),
        ("KATA_PULSE_NODE_EXCLUDE_DISKS", "^dm-"),
        ("KATA_PULSE_NODE_EXCLUDE_MOUNTS", "^/mnt"),
        ("KATA_PULSE_NODE_EXCLUDE_FILESYSTEMS", "^tmpfs"),
        ("KATA_PULSE_METRICS_PROFILE", "all"),
    ];
    let yaml = kata_pulse_in(&environment, ["check-config", "--max-age-secs", "1"]).expect_code(0).stdout;
    for (key, value) in [
        ("max-age-secs", "1.0"),
        ("sync-interval-secs", "2.0"),
        ("metrics-interval-secs", "3.0"),
        ("runtime-endpoint", "/run/some.sock"),
        ("log-level", "warn"),
        ("log-format", "json"),
        ("host-root", "/host"),
        ("procfs", "/p"),
        ("cgroupfs", "/c"),
        ("run-dir", "/r"),
        ("containerd-state", "/s"),
        ("kubelet-dir", "/k"),
        ("shim-scrape", "all"),
        ("scope", "kata"),
        ("exclude-interfaces", "^lxc"),
        ("node-exclude-interfaces", "^veth"),
        ("node-exclude-disks", "^dm-"),
        ("node-exclude-mounts", "^/mnt"),
        ("node-exclude-filesystems", "^tmpfs"),
        ("metrics-profile", "all"),
    ] {
        assert_eq!(setting(&yaml, key), value, "{key} in {yaml}");
    }
    assert!(yaml.starts_with("listen-address:\n- 127.0.0.1:1\n- \"[::1]:2\"\n"), "{yaml}");
    assert!(yaml.contains("enable-collectors:\n- cgroup\n- fd\n- filesystem\n- kata\ndisable-collectors:\n"), "{yaml}");
    let interval = kata_pulse_in(&[("KATA_PULSE_METRICS_INTERVAL", "7")], ["check-config"]).expect_code(0).stdout;
    assert_eq!(setting(&interval, "metrics-interval-secs"), "7.0");
}

#[test]
fn kata_monitors_spelling_with_one_dash_goes_on_working() {
    let with_equals = ["-listen-address=127.0.0.1:9", "-runtime-endpoint=/run/some.sock", "-log-level=debug"];
    let apart = ["-listen-address", "127.0.0.1:9", "-runtime-endpoint", "/run/some.sock", "-log-level", "debug"];
    for arguments in [&with_equals[..], &apart] {
        let yaml = kata_pulse(["check-config"].iter().chain(arguments)).expect_code(0).stdout;
        assert!(yaml.starts_with("listen-address:\n- 127.0.0.1:9\nruntime-endpoint: /run/some.sock\n"), "{yaml}");
        assert_eq!(setting(&yaml, "log-level"), "debug");
    }
    let short = kata_pulse(["check-config", "-l", "127.0.0.1:9", "-r", "none", "-m", "5"]).expect_code(0).stdout;
    assert!(short.starts_with("listen-address:\n- 127.0.0.1:9\nruntime-endpoint: none\n"), "{short}");
    assert_eq!(setting(&short, "metrics-interval-secs"), "5.0");

    let host = Host::v2();
    let agent = start(host.flags_but_runtime(), &["-listen-address=127.0.0.2:0", "-runtime-endpoint=none"]);
    agent.wait_until("both addresses are announced", PATIENCE, || addresses(&agent).len() == 2);
    assert_eq!(addresses(&agent)[1].ip().to_string(), "127.0.0.2");
    agent.stop(0);
}

#[test]
fn collect_prints_every_format() {
    let node = NamedNode::start();
    let web = Pod::new("shop", "web");
    let app = web.container("app");
    node.run(&web, 41, &[&app]);
    let collect = |format: &[&str]| {
        let mut arguments = node.flags();
        arguments.push("collect".into());
        arguments.extend(format.iter().map(Into::into));
        kata_pulse(arguments).expect_code(0)
    };
    let labels = [("container", "app"), ("pod", "web")];
    let page = collect(&[]).page();
    assert_eq!(page.value("container_memory_rss", &labels), 16_777_216.0);
    assert!(page.family("kata_pulse_build_info").is_none(), "one collection has no life to tell of");
    let open_metrics = collect(&["--format", "openmetrics"]).stdout;
    assert!(open_metrics.ends_with("\n# EOF\n"));
    assert!(
        open_metrics
            .contains("# TYPE container_cpu_usage_seconds counter\n# UNIT container_cpu_usage_seconds seconds\n")
    );
    let json: Value = serde_json::from_str(&collect(&["--format", "json"]).stdout).expect("JSON");
    let families = json["families"].as_array().expect("families");
    let rss = families.iter().find(|family| family["name"] == "container_memory_rss").expect("the family");
    assert_eq!(rss["type"], "gauge");
    let samples = rss["samples"].as_array().expect("samples");
    let app_sample = samples.iter().find(|sample| sample["labels"]["container"] == "app").expect("the sample");
    assert_eq!(app_sample["value"], 16_777_216);
    assert_eq!(app_sample["labels"]["name"], app.id());
    assert_eq!(json["sandboxes"][0]["sandbox_id"], web.id());
}

#[test]
fn log_lines_are_logfmt_or_json() {
    let host = Host::v2();
    let logfmt = start(host.flags(), &[]);
    let line = log_with(&logfmt, &["msg=listening"]).pop().expect("it listens");
    assert!(line.starts_with("ts=20") && line.contains("Z level=info msg=listening target=kata_pulse"), "{line}");
    assert_eq!(log_with(&logfmt, &["kata-pulse starts", "version=0.1.0", "runtime_endpoint=none"]).len(), 1);
    logfmt.stop(0);

    let mut arguments = host.flags();
    arguments.extend(["--log-format", "json", "collect", "--cgroupfs", "/nonexistent"].map(Into::into));
    let outcome = kata_pulse(arguments).expect_code(1);
    assert!(outcome.stderr.lines().count() > 1);
    for line in outcome.stderr.lines() {
        let entry: Value = serde_json::from_str(line).expect("an object per line");
        for key in ["ts", "level", "msg", "target"] {
            assert!(entry[key].is_string(), "{key} in {line}");
        }
    }
}

#[test]
fn help_and_version_are_answers() {
    let version = kata_pulse(["--version"]).expect_code(0);
    assert_eq!(version.stdout, format!("kata-pulse {}\n", env!("CARGO_PKG_VERSION")));
    let help = kata_pulse(["--help"]).expect_code(0);
    for flag in ["--listen-address", "--runtime-endpoint", "--metrics-interval-secs", "--max-age-secs", "--host-root"] {
        assert!(help.stdout.contains(flag), "{flag}");
    }
    assert_eq!((version.stderr.as_str(), help.stderr.as_str()), ("", ""));
}
