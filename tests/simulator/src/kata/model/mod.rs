//! The workload: what is true of a sandbox at a tick, as a function of its plan, its seed and the tick.
//!
//! The parts fit together as they do on a node: a container's memory adds up to its usage, the guest has used at
//! least what its containers have, the hypervisor at least what the guest has, and a cgroup what its processes have.

mod container;
mod guest;
mod host;
mod vmm;
mod vmstat;

pub(super) use container::PAUSE;

use super::dice::Dice;
use super::kind::HostCgroup;
use super::layout::{Layout, Placement};
use super::plan::{ContainerPlan, SandboxPlan};
use super::truth::{ContainerTruth, MemoryTruth, Truth};

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

/// What changes while a sandbox runs, besides the tick.
#[derive(Debug, Default)]
pub(super) struct Life {
    /// The pause container first.
    pub(super) containers: Vec<(String, ContainerPlan)>,
    /// What removed containers have used: the guest as a whole has used it still.
    gone: Vec<ContainerTruth>,
    /// The most that the containers of any moment may have used together.
    room: u64,
    /// Processes the guest's kernel has killed for want of memory.
    pub(super) oom_kills: u64,
}

impl Facts {
    /// The sandbox id.
    pub(super) fn id(&self) -> &str {
        &self.layout.id
    }

    /// Everything at this tick.
    pub(super) fn truth(&self, tick: u64, life: &Life) -> Truth {
        let mut all: Vec<_> =
            life.containers.iter().map(|(id, plan)| self.plan.container(id, plan, id == self.id(), tick)).collect();
        all.extend_from_slice(&life.gone);
        let guest = self.guest(&all, tick, life.oom_kills);
        all.truncate(life.containers.len());
        let vmm = self.vmm(&guest, tick);
        let host = self.host(&guest, life, tick);
        Truth { tick, containers: all, guest, vmm, host }
    }

    /// The life of a sandbox that begins with these containers.
    pub(super) fn begin(&self, containers: Vec<(String, ContainerPlan)>) -> Life {
        let mut life = Life::default();
        containers.into_iter().for_each(|(id, plan)| self.add(&mut life, id, plan));
        life
    }

    /// A container comes.
    pub(super) fn add(&self, life: &mut Life, id: String, plan: ContainerPlan) {
        life.containers.push((id, plan));
        let room = life.containers.iter().skip(1).map(|(_, plan)| self.plan.room(plan)).sum();
        life.room = life.room.max(room);
    }

    /// A container goes, and its memory with it. Gives whether there was one.
    pub(super) fn remove(&self, life: &mut Life, id: &str, tick: u64) -> bool {
        let Some(place) = life.containers.iter().position(|(other, _)| other == id) else { return false };
        let (id, plan) = life.containers.remove(place);
        let last = self.plan.container(&id, &plan, false, tick);
        let MemoryTruth { page_faults, major_page_faults, .. } = last.memory;
        let memory = MemoryTruth { page_faults, major_page_faults, ..MemoryTruth::default() };
        life.gone.push(ContainerTruth { memory, pids: 0, ..last });
        true
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
