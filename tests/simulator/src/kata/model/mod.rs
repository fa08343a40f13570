//! The workload: what is true of a sandbox at a tick, as a function of its plan, its seed and the tick.
//!
//! The parts fit together as they do on a node: a container's memory adds up to its usage, the guest has used at
//! least what its containers have, the hypervisor at least what the guest has, and a cgroup what its processes have.

mod container;
mod guest;
mod host;
mod vmm;
mod vmstat;

use super::dice::Dice;
use super::kind::HostCgroup;
use super::layout::{Layout, Placement};
use super::plan::{ContainerPlan, SandboxPlan};
use super::truth::Truth;

/// Bytes of a page.
const PAGE: u64 = 4096;

/// Milliseconds of a clock tick.
const TICK_MS: u64 = 10;

/// What never changes about a sandbox.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) plan: SandboxPlan,
    pub(super) layout: Layout,
    pub(super) placement: Placement,
    pub(super) host: HostCgroup,
    /// The pause container first.
    pub(super) containers: Vec<(String, ContainerPlan)>,
    pub(super) pids: Pids,
    pub(super) dice: Dice,
}

/// The processes of a sandbox. Thread ids follow each pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pids {
    pub(super) shim: u32,
    /// Under Dragonball a thread of the shim.
    pub(super) hypervisor: u32,
    pub(super) virtiofsd: Option<u32>,
    pub(super) virtiofsd_child: Option<u32>,
    pub(super) kernel_thread: Option<u32>,
}

/// What tests change while a sandbox runs, besides the tick.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Events {
    /// Processes the guest's kernel has killed for want of memory.
    pub(super) oom_kills: u64,
}

impl Facts {
    /// The sandbox id.
    pub(super) fn id(&self) -> &str {
        &self.layout.id
    }

    /// Everything at this tick.
    pub(super) fn truth(&self, tick: u64, events: Events) -> Truth {
        let containers: Vec<_> = (0..self.containers.len()).map(|index| self.container(index, tick)).collect();
        let guest = self.guest(&containers, tick, events);
        let vmm = self.vmm(&guest, tick);
        let host = self.host(&guest, tick);
        Truth { tick, containers, guest, vmm, host }
    }

    /// The most that one container of the guest may use, so that all of them fit.
    fn room(&self, plan: &ContainerPlan) -> u64 {
        let heads = u64::try_from(self.containers.len()).unwrap_or(u64::MAX);
        let share = self.plan.memory_bytes.saturating_sub(guest::RESERVED) / (heads + 1);
        share.min(96 << 20).min(plan.memory_limit.unwrap_or(u64::MAX)).max(2 << 20)
    }
}

/// Rounded down to whole pages.
fn pages(bytes: u64) -> u64 {
    bytes / PAGE * PAGE
}

/// The share of the `index`th of `parts` in a growing sum: shares add up to it, and each only grows.
fn part(sum: u64, index: u64, parts: u64) -> u64 {
    (sum + parts - 1 - index) / parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_and_only_grow() {
        for parts in 1..5 {
            for sum in 0..40 {
                assert_eq!((0..parts).map(|index| part(sum, index, parts)).sum::<u64>(), sum);
                assert!((0..parts).all(|index| part(sum + 1, index, parts) >= part(sum, index, parts)));
            }
        }
    }
}
