//! Every source of the agent with every fault, from the first collection on and again after good ones.
//!
//! | source | absent | refused | hung | slow | truncated | garbage | huge | denied | vanishing |
//! |---|---|---|---|---|---|---|---|---|---|
//! | container runtime (CRI) | `runtime` | `runtime` | `runtime` | `runtime` | `runtime` | `runtime` | `runtime` | `runtime` | `runtime` |
//! | container events | – | `runtime` | `runtime` | – | `runtime` | – | – | – | `runtime` |
//! | cgroup files, v1 and v2 | `files` | `files` | `files` | `files` | `files` | `files` | `files` | `files` | `files` |
//! | `/proc/<pid>` of containers | `files` | `files` | `files` | `files` | `files` | `files` | `files` | `files` | `files` |
//! | `/proc` of the node | `files` | `files` | `files` | `files` | `files` | `files` | `files` | `files` | – |
//! | roots of Kata sandboxes | `roots` | `roots` | – | – | – | `roots` | – | `roots` | `roots` |
//! | sockets of a sandbox | `sockets` | `sockets` | – | – | – | `sockets` | – | `sockets` | – |
//!
//! Elsewhere: what answers behind a sandbox's sockets (kata-agent, Task service, shim, Cloud Hypervisor), state files and
//! lies in `kata_hostile`, processes of a sandbox in `src/collect/kata/host/tests.rs`, the API
//! server and web files in `web`, the cgroup mount as a whole in `lifecycle`.
//!
//! A cell says what is served, what is said and how long it took; and when the fault has gone, that everything is as if
//! it had not been. All agents here lack the right to pass over permissions, which root has and a careful pod has not.

use std::time::Duration;

mod files;
mod roots;
mod runtime;
mod sockets;
#[path = "../support/mod.rs"]
mod support;

use support::agent::Agent;

/// Long enough for anything that is not stuck, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Prometheus gives up after ten seconds. Half a second of it is for a machine that has much else to do.
const IN_TIME: Duration = Duration::from_millis(9500);

/// Starts an agent for which permissions are what they are for everybody.
#[track_caller]
fn start(flags: Vec<std::ffi::OsString>) -> Agent {
    Agent::start_by(&["setpriv", "--bounding-set", "-dac_override,-dac_read_search"], &[], flags)
}

/// How often the agent has logged a line with all of these.
fn logged(agent: &Agent, parts: &[&str]) -> usize {
    agent.log().iter().filter(|line| parts.iter().all(|part| line.contains(part))).count()
}
