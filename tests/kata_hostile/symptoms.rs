//! What once went wrong, named after how it showed.

use kata_pulse_simulator::kata::{Endpoint, Fault, Hypervisor, KataNode, Runtime};

use crate::support::agent::Agent;
use crate::support::kata::{flags, scrape};

#[test]
fn an_agent_url_that_does_not_come_is_asked_for_every_other_time() {
    let node = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::Qemu).start().expect("a node");
    let sandbox = node.sandbox(0);
    sandbox.fail(Endpoint::Shim, Fault::Hang);
    let agent = Agent::start(flags(&node));
    for asked in [1, 1, 2, 2] {
        scrape(&agent);
        assert_eq!(sandbox.requests(Endpoint::Shim, "GET /agent-url"), asked);
    }
}
