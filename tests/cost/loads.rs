//! The nodes whose scrapes are measured: so many runc pods, or so many Kata sandboxes.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::Parser as _;
use kata_pulse::agent::AgentHandle;
use kata_pulse::cli::Cli;
use kata_pulse::config::Config;
use kata_pulse::telemetry::Telemetry;
use kata_pulse_simulator::cri::Pod;

use crate::support::node::NamedNode;
use crate::support::shim::kata_node;

/// Pods at the smaller and at the larger size.
pub const SIZES: [usize; 2] = [8, 20];

/// Containers of each pod.
pub const CONTAINERS: usize = 2;

/// A cgroup that was found less than ten seconds ago is looked at harder.
const GROWN_UP: Duration = Duration::from_secs(11);

/// What an agent reads, as long as it lives.
pub trait Load {
    /// The flags that make an agent read it.
    fn flags(&self) -> Vec<String>;
}

/// Pods of two containers each, on a made-up cgroup v2 node with a runtime that names them.
pub struct Runc(NamedNode);

impl Runc {
    pub fn start(pods: usize) -> Self {
        let node = NamedNode::start();
        for number in 0..pods {
            let pod = Pod::new("cost", &format!("pod-{number:03}"));
            let (one, other) = (pod.container("one"), pod.container("other"));
            node.run(&pod, 1000 + u32::try_from(number).unwrap(), &[&one, &other]);
        }
        Self(node)
    }
}

impl Load for Runc {
    fn flags(&self) -> Vec<String> {
        self.0.flags().into_iter().map(|flag| flag.into_string().unwrap()).collect()
    }
}

/// Sandboxes of two containers each, served by a process of their own so that their cost is not ours.
pub struct Kata {
    server: Child,
    flags: Vec<String>,
}

impl Kata {
    pub fn start(sandboxes: usize) -> Self {
        let mut command = Command::new(kata_node());
        command.args(["--containers", &CONTAINERS.to_string(), "--sandboxes", &sandboxes.to_string()]);
        let mut server = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start kata-node");
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let says: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|fault| panic!("{fault}: {line:?}"));
        let flags = says["flags"].as_array().unwrap().iter().map(|flag| flag.as_str().unwrap().to_owned());
        Self { flags: flags.collect(), server }
    }
}

impl Load for Kata {
    fn flags(&self) -> Vec<String> {
        self.flags.clone()
    }
}

impl Drop for Kata {
    fn drop(&mut self) {
        // The end of its standard input is the end of it.
        drop(self.server.stdin.take());
        self.server.wait().ok();
    }
}

/// Both kinds of pods, at both sizes.
pub fn all() -> [(&'static str, [Box<dyn Load>; 2]); 2] {
    [
        ("runc pod of two containers", SIZES.map(|size| Box::new(Runc::start(size)) as Box<dyn Load>)),
        ("Kata sandbox of two containers", SIZES.map(|size| Box::new(Kata::start(size)) as Box<dyn Load>)),
    ]
}

/// The flags of an agent whose every scrape is a collection of its own, and who does nothing between them.
pub fn flags(load: &dyn Load) -> Vec<String> {
    let quiet = ["--max-age-secs", "0", "--sync-interval-secs", "86400"];
    load.flags().into_iter().chain(quiet.map(str::to_owned)).collect()
}

/// An agent in this process.
pub fn agent(load: &dyn Load) -> AgentHandle {
    let cli = Cli::parse_from(std::iter::once("kata-pulse".to_owned()).chain(flags(load)));
    AgentHandle::start(&Config::new(cli.settings).unwrap(), Arc::new(Telemetry::new().unwrap()))
}

/// Waits until what was found before is no longer young.
pub fn grow_up() {
    thread::sleep(GROWN_UP);
}

/// What one more pod adds, from what was measured at both sizes.
pub fn each_more([few, many]: [f64; 2]) -> f64 {
    (many - few) / (SIZES[1] - SIZES[0]) as f64
}
