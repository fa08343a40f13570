//! Messages of kata-agents and shims in protobuf.

use std::fmt::Debug;

use kata_pulse::collect::kata::stats::{of_agent, of_task};
use kata_pulse::model::inventory::KataRuntime;
use kata_pulse::protos::agent::{Metrics, StatsContainerResponse, VersionCheckResponse};
use kata_pulse::protos::task::StatsResponse;
use kata_pulse::protos::{bytes_field, cgroups_v1, cgroups_v2, decode};
use protobuf::Message;
use protobuf::well_known_types::any::Any;

use crate::memory::within;
use crate::page;

/// A message decodes as by the library's own reader, comes back from its own bytes, and takes no more memory than its
/// bytes can be worth.
fn decoded<M: Message + Debug + PartialEq>(bytes: &[u8]) -> Option<M> {
    // The size of the largest entry of a list, empty, for two bytes of input.
    let ours = within(bytes.len(), 300, 16 << 10, || decode::<M>(bytes)).ok()?;
    let theirs = M::parse_from_bytes(bytes).expect("what we can decode");
    assert_eq!(ours, theirs);
    let written = ours.write_to_bytes().expect("a message can be written");
    assert_eq!(decode::<M>(&written).expect("what was written"), ours);
    Some(ours)
}

/// The kata-agent's answers.
pub fn agent_stats(bytes: &[u8]) {
    if let Some(reply) = decoded::<StatsContainerResponse>(bytes) {
        let usage = of_agent(&reply.cgroup_stats.unwrap_or_default());
        assert!(usage.io.len() <= 128 && usage.hugetlb.len() <= 8);
        page::of_usage(usage);
    }
    if let Some(metrics) = decoded::<Metrics>(bytes) {
        let field = bytes_field(bytes, 1).expect("what was decoded has fields");
        assert_eq!(field.unwrap_or_default(), metrics.metrics.as_bytes());
    }
    if let Some(version) = decoded::<VersionCheckResponse>(bytes) {
        let field = bytes_field(bytes, 2).expect("what was decoded has fields");
        assert_eq!(field.unwrap_or_default(), version.agent_version.as_bytes());
    }
}

/// A shim's answer to Task `Stats`: the first byte chooses runtime and type, the rest is the payload.
pub fn task_stats(input: &[u8]) {
    let Some((choice, payload)) = input.split_first() else { return };
    decoded::<StatsResponse>(payload);
    let version = if choice & 2 == 0 {
        decoded::<cgroups_v1::Metrics>(payload);
        "v1"
    } else {
        decoded::<cgroups_v2::Metrics>(payload);
        "v2"
    };
    let runtime = if choice & 1 == 0 { KataRuntime::Go } else { KataRuntime::Rs };
    let type_url = format!("types.containerd.io/io.containerd.cgroups.{version}.Metrics");
    let any = Any { type_url, value: payload.to_vec(), ..Any::default() };
    if let Ok(usage) = of_task(&any, runtime) {
        assert!(usage.io.len() <= 128 && usage.hugetlb.len() <= 8);
        page::of_usage(usage);
    }
    let type_url = String::from_utf8_lossy(payload).into_owned();
    let _ = of_task(&Any { type_url, ..Any::default() }, runtime);
}
