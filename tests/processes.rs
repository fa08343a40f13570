//! `/processes` on this host: the processes that use most are there, with what the kernel says of them.

#![allow(clippy::unwrap_used, reason = "whatever fails here is the test's own failure")]

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

mod support;

use support::agent::Agent;
use support::host::Host;

const PATIENCE: Duration = Duration::from_secs(30);

const FLAGS: [&str; 6] = ["--runtime-endpoint", "none", "--max-age-secs", "0", "--enable-collectors", "top"];

/// A process that is ended when this is dropped.
struct Busy(Child);

impl Busy {
    fn start(script: &str) -> Self {
        // No one writes into its standard input, so it can wait there without a child that would survive it.
        let child = Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).spawn();
        Self(child.expect("start a shell"))
    }

    /// Bytes of memory that the kernel says it has.
    fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("it lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ask(agent: &Agent, path: &str) -> Value {
    let answer = agent.get(path);
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{}", answer.text());
    serde_json::from_str(answer.text()).expect("JSON")
}

fn entry(answer: &Value, list: &str, pid: u32) -> Option<Value> {
    answer[list].as_array().expect("a list").iter().find(|entry| entry["pid"] == pid).cloned()
}

#[test]
fn who_uses_most_is_first_with_what_the_kernel_says() {
    let spinning = Busy::start("while :; do :; done");
    // The shell holds what it has read in memory, every byte of it.
    let large = Busy::start("held=$(head -c 150000000 /dev/zero | tr '\\0' x); read -r end");
    let agent = Agent::start(FLAGS);
    agent.wait_until("the large one is large", PATIENCE, || large.resident() > 150_000_000);
    let (pid, spinner) = (large.0.id(), spinning.0.id());
    let first = ask(&agent, "/processes?top=100");
    let began = entry(&first, "by_cpu", spinner).expect("it spins")["cpu_seconds"].as_f64().expect("a number");
    agent.wait_until("it has spun on", PATIENCE, || {
        let now = entry(&ask(&agent, "/processes?top=100"), "by_cpu", spinner).expect("it spins");
        now["cpu_seconds"].as_f64().is_some_and(|seconds| seconds > began + 0.5)
    });

    let answer = ask(&agent, "/processes?top=100");
    let memory = entry(&answer, "by_memory", pid).expect("the large one is among the largest");
    let resident = memory["resident_memory_bytes"].as_u64().expect("a number");
    assert!(resident.abs_diff(large.resident()) < 4 << 20, "{memory}");
    assert_eq!((&memory["comm"], &memory["parent_pid"]), (&"sh".into(), &std::process::id().into()));
    assert_eq!((&memory["pod"], &memory["sandbox_id"]), (&"".into(), &Value::Null), "it is no pod's");

    let cpu = entry(&answer, "by_cpu", spinner).expect("it spins");
    let (cores, over) = (cpu["cpu_cores"].as_f64().expect("a number"), cpu["cpu_over_seconds"].as_f64());
    // Others may want the processors, too.
    assert!((0.1..1.2).contains(&cores) && over.is_some_and(|over| over > 0.0), "{cpu}");
    assert_eq!(cpu["state"], "R");

    for (list, key) in [("by_memory", "resident_memory_bytes"), ("by_cpu", "cpu_cores")] {
        let values: Vec<f64> = answer[list].as_array().unwrap().iter().map(|one| one[key].as_f64().unwrap()).collect();
        assert!(values.is_sorted_by(|one, other| one >= other), "{list}: {values:?}");
    }
    let processes = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit())));
    let (told, there) = (answer["processes"].as_u64().expect("a number"), processes.count() as u64);
    assert!(told > 5 && told.abs_diff(there) <= there / 4 + 20, "{told} of {there}");
    agent.stop(0);
}

#[test]
fn as_many_are_listed_as_are_asked_for_in_three_formats() {
    let agent = Agent::start(FLAGS);
    for (path, listed) in [("/processes", 10), ("/processes?top=1", 1), ("/processes?top=3", 3)] {
        let answer = ask(&agent, path);
        assert_eq!(answer["by_cpu"].as_array().map(Vec::len), Some(listed), "{path}");
        assert_eq!(answer["by_memory"].as_array().map(Vec::len), Some(listed), "{path}");
    }
    for asked in ["0", "101", "-1", "x", "", "1&top=2"] {
        let answer = agent.get(&format!("/processes?top={asked}"));
        assert_eq!(answer.status, 400, "{asked}");
        assert!(answer.text().starts_with("top: ") && answer.text().lines().count() == 1, "{}", answer.text());
    }
    let plain = agent.get_with("/processes?top=2", &[("Accept", "text/plain")]);
    assert_eq!(plain.header("content-type"), "text/plain; charset=utf-8");
    // A line of the number, and twice a blank one, a title, a head and two processes.
    assert_eq!(plain.text().lines().count(), 11, "{}", plain.text());
    let html = agent.get_with("/processes?top=2", &[("Accept", "text/html")]);
    assert_eq!(html.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(html.text().matches("<tr><td>").count(), 4, "{}", html.text());
    assert_eq!(html.header("vary"), "Accept");
}

#[test]
fn a_name_is_text_in_every_format() {
    let host = Host::v2();
    host.write("proc/7/stat", "7 (<b>\"&\u{1b}[2J) S 1 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0 3 0 40000 9000 700 0\n");
    let mut flags = host.flags();
    flags.extend(["--enable-collectors", "top", "--metrics-profile", "all"].map(Into::into));
    let agent = Agent::start(flags);
    let answer = ask(&agent, "/processes");
    assert_eq!(answer["by_memory"][0]["comm"], "<b>\"&\u{fffd}[2J");
    let html = agent.get_with("/processes", &[("Accept", "text/html")]);
    assert!(html.text().contains("<td>&lt;b&gt;&quot;&amp;\u{fffd}[2J</td>"), "{}", html.text());
    let plain = agent.get_with("/processes", &[("Accept", "text/plain")]);
    assert!(!plain.text().contains('\u{1b}') && plain.text().contains("<b>\"&"), "{}", plain.text());
    let group = [("comm", "<b>\"&\u{fffd}[2J"), ("container", ""), ("namespace", ""), ("pod", "")];
    // 150 + 50 ticks
    assert_eq!(agent.page("/metrics").value("kata_pulse_top_process_cpu_seconds_total", &group), 2.0);
}

#[test]
fn nobody_looks_unless_asked_and_families_take_the_profile() {
    let off = Agent::start(["--runtime-endpoint", "none"]);
    let answer = off.get("/processes");
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("--enable-collectors top"), "{}", answer.text());
    let on = Agent::start(FLAGS);
    assert!(!on.get("/metrics").text().contains("kata_pulse_top_process"), "without the profile");
    assert_eq!(on.get("/processes").status, 200);
    let all = Agent::start([&FLAGS[..], &["--metrics-profile", "all"]].concat());
    let page = all.page("/metrics");
    for family in ["kata_pulse_top_process_cpu_seconds_total", "kata_pulse_top_process_resident_memory_bytes"] {
        let groups = page.matching(family, &[]).len();
        assert!((5..=40).contains(&groups), "{groups} of {family}");
    }
    assert_eq!(all.get("/metrics/cadvisor").text().matches("kata_pulse_top_process").count(), 0);
}
