//! `/metrics/resource` as metrics-server reads it, and against what a kubelet said there.

#![allow(clippy::unwrap_used, reason = "whatever fails here is the test's own failure")]

use std::ffi::OsString;

use kata_pulse_simulator::cri::Pod;

mod form;
mod guests;
mod left_out;
#[path = "../support/mod.rs"]
mod support;
mod times;

use support::agent::Agent;
use support::exposition::Page;
use support::metrics_server::{Batch, decode};
use support::node::{NamedNode, row_of};

const PATH: &str = "/metrics/resource";

/// Any moment: whoever has a timestamp does not need it.
const ASKED: i64 = 1;

fn start(mut flags: Vec<OsString>, more: &[&str]) -> Agent {
    flags.extend(more.iter().map(Into::into));
    Agent::start(flags)
}

#[track_caller]
fn text(agent: &Agent) -> String {
    let answer = agent.get(PATH);
    assert_eq!(answer.status, 200, "{}", answer.text());
    // What everybody who scrapes must be able to read.
    Page::parse(answer.text()).unwrap_or_else(|fault| panic!("{fault}"));
    answer.text().to_owned()
}

fn batch(agent: &Agent) -> Batch {
    decode(&text(agent), ASKED)
}

/// A pod `shop/web` with the containers `app` and `sidecar`, and where their cgroups are.
fn two_containers() -> (NamedNode, String, String) {
    let node = NamedNode::start();
    let web = Pod::new("shop", "web");
    let (app, sidecar) = (web.container("app"), web.container("sidecar"));
    node.run(&web, 41, &[&app, &sidecar]);
    let cgroup = |id| format!("sys/fs/cgroup{}", row_of(&web, id));
    let cgroups = (cgroup(app.id()), cgroup(sidecar.id()));
    (node, cgroups.0, cgroups.1)
}
