//! What the agent holds: memory, threads, descriptors.

use std::fs;

use crate::support::agent::Agent;

/// At one moment, or on average.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub rss_kib: f64,
    pub threads: f64,
    pub descriptors: f64,
}

impl Held {
    /// What it holds now.
    pub fn by(agent: &Agent) -> Self {
        let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("the agent lives");
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("the kernel tells it");
            line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
        };
        let descriptors = fs::read_dir(format!("/proc/{}/fd", agent.pid())).expect("the agent lives").count();
        Self { rss_kib: number("VmRSS:"), threads: number("Threads:"), descriptors: descriptors as f64 }
    }

    /// The mean of several moments.
    pub fn mean(of: &[Self]) -> Self {
        let mean = |what: fn(&Self) -> f64| of.iter().map(what).sum::<f64>() / of.len() as f64;
        Self {
            rss_kib: mean(|held| held.rss_kib),
            threads: mean(|held| held.threads),
            descriptors: mean(|held| held.descriptors),
        }
    }
}
