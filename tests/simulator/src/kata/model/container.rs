//! One container in the guest.

use super::{PAGE, guest, pages, part};
use crate::kata::dice::Dice;
use crate::kata::plan::{ContainerPlan, SandboxPlan};
use crate::kata::truth::{BlockIoTruth, ContainerTruth, CpuTruth, MemoryTruth};

/// The pause container's name.
pub(in crate::kata) const PAUSE: &str = "POD";

/// Periods of 100 ms in a tick.
const PERIODS: u64 = 10;

impl SandboxPlan {
    /// What is true at this tick of a container of a [given](ContainerPlan::with_id) id, whatever else is in the guest:
    /// how a test knows a sandbox that is simulated in another process.
    ///
    /// # Panics
    /// When the container has no id.
    #[must_use]
    pub fn container_truth(&self, plan: &ContainerPlan, tick: u64) -> ContainerTruth {
        let id = plan.id.as_deref().expect("a container with an id");
        self.container(id, plan, false, tick)
    }

    /// The same of the pause container of a sandbox.
    #[must_use]
    pub fn pause_truth(&self, sandbox: &str, tick: u64) -> ContainerTruth {
        self.container(sandbox, &ContainerPlan::new(PAUSE), true, tick)
    }

    pub(super) fn container(&self, id: &str, plan: &ContainerPlan, pause: bool, tick: u64) -> ContainerTruth {
        let dice = Dice::new(self.seed, id);
        ContainerTruth {
            id: id.to_owned(),
            name: plan.name.clone(),
            cpu: self.cpu(dice, plan, pause, tick),
            memory: memory(dice, plan, if pause { 2 << 20 } else { self.room(plan) }, tick),
            pids: if pause { 1 } else { dice.gauge("pids", 2, 12, tick) },
            block_io: if pause || self.disks == 0 { Vec::new() } else { vec![block_io(dice, tick)] },
        }
    }

    fn cpu(&self, dice: Dice, plan: &ContainerPlan, pause: bool, tick: u64) -> CpuTruth {
        let vcpus = self.vcpus;
        // Microseconds per tick that leave the guest mostly idle, and a container below its quota.
        let quota = plan.cpu_quota.map_or(u64::MAX, |quota| quota * PERIODS * 3 / 4);
        let share = if pause { 80 } else { (300_000 * vcpus / self.heads()).min(quota).max(16) };
        let user = dice.counter("cpu user", share / 4 + dice.roll("cpu", share / 8), tick);
        let kernel = dice.counter("cpu kernel", share / 16, tick);
        let limited = plan.cpu_quota.is_some();
        let periods = if limited { PERIODS * tick + dice.roll("periods", 100) } else { 0 };
        let throttled = if limited { dice.counter_from_zero("throttled", 3, tick) } else { 0 };
        let total = (user + kernel) * 1000;
        CpuTruth {
            user_ns: user * 1000,
            kernel_ns: kernel * 1000,
            per_cpu_ns: (0..vcpus).map(|cpu| part(total, cpu, vcpus)).collect(),
            periods,
            throttled_periods: throttled.min(periods),
            throttled_ns: throttled.min(periods) * 41_000_000,
        }
    }

    /// The most that one container of the guest may use, so that all of them fit.
    pub(super) fn room(&self, plan: &ContainerPlan) -> u64 {
        let share = self.memory_bytes.saturating_sub(guest::RESERVED) / (self.heads() + 1);
        share.min(96 << 20).min(plan.memory_limit.unwrap_or(u64::MAX)).max(2 << 20)
    }
}

/// Memory in sixty-fourths of the room there is; at most 40 of them are used.
fn memory(dice: Dice, plan: &ContainerPlan, room: u64, tick: u64) -> MemoryTruth {
    let unit = room / 64;
    let moving = |what, low, high| pages(dice.gauge(what, unit * low, unit * high, tick));
    let page_tables = (4 + dice.roll("page tables", 8)) * PAGE;
    MemoryTruth {
        limit: plan.memory_limit,
        peak: pages(unit * 56),
        swap: 0,
        active_anon: moving("active anon", 4, 8),
        inactive_anon: moving("inactive anon", 2, 6),
        active_file: moving("active file", 2, 6),
        inactive_file: moving("inactive file", 6, 14),
        shmem: pages(unit),
        file_mapped: pages(unit),
        file_dirty: PAGE * dice.gauge("dirty", 0, 3, tick),
        kernel_stack: 16 << 10,
        page_tables,
        percpu: 1088,
        sock: PAGE * dice.gauge("sock", 0, 2, tick),
        slab_reclaimable: 64 * (unit / 128) + 64 * dice.roll("slab", 100),
        slab_unreclaimable: 64 * (unit / 256),
        page_faults: dice.counter("faults", 40, tick),
        major_page_faults: dice.counter("major faults", 1, tick),
        failures: plan.memory_limit.map_or(0, |_| dice.counter_from_zero("failures", 1, tick)),
    }
}

fn block_io(dice: Dice, tick: u64) -> BlockIoTruth {
    let (reads, writes) = (dice.counter_from_zero("reads", 4, tick), dice.counter_from_zero("writes", 9, tick));
    BlockIoTruth { major: 254, minor: 0, read_bytes: reads * 8192, write_bytes: writes * 16_384, reads, writes }
}
