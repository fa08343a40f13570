//! What each collector costs on this host, and the `node` collector beside node_exporter. All run at the same time and are
//! asked in turn.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::agent::{Agent, Cpu};
use crate::figures::{Beside, Spread, Walk};
use crate::run::{GROWN_UP, WARM_UP};

/// From the Debian package `prometheus-node-exporter`.
const EXPORTER: &str = "/usr/bin/prometheus-node-exporter";

/// Those that are compared with others by this name.
pub const ALL: &str = "all of them";

/// Our collector in the second comparison, and node_exporter, each with what the client takes.
pub const HOST: [&str; 4] =
    ["kata-pulse, `node` alone", "node_exporter", "kata-pulse, `node` alone, gzip", "node_exporter, gzip"];

/// A program that is asked in turn with others.
struct Asked {
    name: String,
    agent: Agent,
    /// Only samples whose names begin like this are counted.
    counted: &'static str,
}

/// Every collector by itself, none, those that are on by default, and all of them, on the pods that the flags lead to. Also
/// the pass over `emptyDir`s, of which a scrape only tells.
pub fn each(program: &Path, rounds: usize, pods: &[String]) -> anyhow::Result<(Vec<Beside>, Walk)> {
    let known = known(program)?;
    let names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
    let default: Vec<&str> = known.iter().filter(|(_, on)| *on).map(|(name, _)| name.as_str()).collect();
    let mut asked = Vec::new();
    let mut add = |name: &str, on: &[&str]| -> anyhow::Result<()> {
        let agent = Agent::start(program, &[], &[pods, &flags(&names, on)].concat())?;
        asked.push(Asked { name: name.to_owned(), agent, counted: "" });
        Ok(())
    };
    add("none", &[])?;
    for name in &names {
        add(&format!("`{name}`"), &[name])?;
    }
    add("those on by default", &default)?;
    add(ALL, &names)?;
    let beside = ask(&asked, rounds)?;
    let page = asked.last().context("there is one")?.agent.get("/metrics")?.body;
    let of = |fact| value(&page, &format!("kata_pulse_emptydir_walk_{fact}"));
    let walk = Walk { entries: of("entries")?, seconds: of("duration_seconds")? };
    ensure!(walk.entries > 0.0, "no emptyDir was found");
    Ok((beside, walk))
}

/// The host alone, by both.
pub fn host(program: &Path, rounds: usize) -> anyhow::Result<Vec<Beside>> {
    ensure!(Path::new(EXPORTER).is_file(), "{EXPORTER} is missing: `make bench` installs it");
    let known = known(program)?;
    let names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
    let mut asked = Vec::new();
    for (name, (ours, gzip)) in HOST.into_iter().zip([(true, false), (false, false), (true, true), (false, true)]) {
        let flags = [vec!["--runtime-endpoint=none".to_owned()], flags(&names, &["node"])].concat();
        let agent = if ours { Agent::start(program, &[], &flags)? } else { exporter()? };
        let agent = if gzip { agent.compressing() } else { agent };
        asked.push(Asked { name: name.to_owned(), agent, counted: "node_" });
    }
    ask(&asked, rounds)
}

/// Names of the collectors, and whether each is on by default.
fn known(program: &Path) -> anyhow::Result<Vec<(String, bool)>> {
    let output = Command::new(program).arg("collectors").env_clear().output()?;
    let text = String::from_utf8(output.stdout)?;
    let lines = text.lines().skip(1).map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()? == "on"))
    });
    lines.collect::<Option<_>>().with_context(|| format!("`collectors` says {text:?}"))
}

/// Everything that a collector gives is served, whatever the profile.
fn flags(all: &[&str], on: &[&str]) -> Vec<String> {
    let mut flags = vec!["--metrics-profile=all".to_owned()];
    let off: Vec<&str> = all.iter().filter(|name| !on.contains(name)).copied().collect();
    for (flag, names) in [("enable", on), ("disable", &off)] {
        flags.push(format!("--{flag}-collectors={}", names.join(",")));
    }
    flags
}

fn exporter() -> anyhow::Result<Agent> {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    Agent::other(Path::new(EXPORTER), &[format!("--web.listen-address={free}"), "--log.level=error".to_owned()], free)
}

/// Asks all of them in turn.
fn ask(asked: &[Asked], rounds: usize) -> anyhow::Result<Vec<Beside>> {
    for one in asked {
        one.agent.get("/metrics")?;
    }
    thread::sleep(GROWN_UP);
    for _ in 0..WARM_UP {
        for one in asked {
            one.agent.get("/metrics")?;
        }
    }
    let begun = asked.iter().map(|one| one.agent.cpu()).collect::<anyhow::Result<Vec<Cpu>>>()?;
    let mut taken = vec![(Vec::new(), Vec::new()); asked.len()];
    let mut bodies = vec![Vec::new(); asked.len()];
    for _ in 0..rounds {
        for (at, one) in asked.iter().enumerate() {
            let before = one.agent.cpu()?;
            let scrape = one.agent.get("/metrics")?;
            // The last thread goes to sleep a little after the last byte.
            thread::sleep(Duration::from_millis(2));
            // A thread that has ended took its count with it.
            let Some(used) = one.agent.cpu()?.since(&before) else { continue };
            taken[at].0.push(Duration::from_nanos(used));
            taken[at].1.push(scrape.wall);
            bodies[at] = scrape.body;
        }
    }
    let beside = asked.iter().zip(&begun).zip(taken).zip(&bodies).map(|(((one, begun), (cpu, wall)), body)| {
        let whole = one.agent.cpu()?.since(begun);
        Ok(Beside {
            name: one.name.clone(),
            samples: samples(body, one.counted),
            body: body.len(),
            cpu: Spread::of_times(cpu),
            // What is done between scrapes is somebody's, too: a collector of garbage is late.
            mean: whole.map(|nanos| nanos as f64 / 1e6 / rounds as f64),
            wall: Spread::of_times(wall),
            resident: one.agent.status_of("VmRSS")?,
            peak: one.agent.status_of("VmHWM")?,
        })
    });
    beside.collect()
}

/// The value of a sample without labels.
fn value(body: &[u8], name: &str) -> anyhow::Result<f64> {
    let mut lines = std::str::from_utf8(body)?.lines().filter_map(|line| line.split_once(' '));
    let (_, value) = lines.find(|(sample, _)| *sample == name).with_context(|| format!("{name} is not served"))?;
    Ok(value.parse()?)
}

/// How many samples a body has, unless it is compressed.
fn samples(body: &[u8], prefix: &str) -> Option<usize> {
    let text = std::str::from_utf8(body).ok()?;
    Some(text.lines().filter(|line| !line.starts_with('#') && line.starts_with(prefix)).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_collector_is_on_by_itself() {
        let flags = flags(&["cgroup", "fd", "node"], &["fd"]);
        assert_eq!(flags[1..], ["--enable-collectors=fd", "--disable-collectors=cgroup,node"]);
    }

    #[test]
    fn samples_are_lines_without_a_hash() {
        let body = b"# HELP node_a b\n# TYPE node_a gauge\nnode_a 1\nprocess_b 2\n";
        assert_eq!((samples(body, "node_"), samples(body, ""), samples(&[0x1f, 0x8b], "")), (Some(1), Some(2), None));
    }
}
