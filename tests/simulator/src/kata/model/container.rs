//! One container in the guest.

use super::{Facts, PAGE, pages, part};
use crate::kata::dice::Dice;
use crate::kata::plan::ContainerPlan;
use crate::kata::truth::{BlockIoTruth, ContainerTruth, CpuTruth, MemoryTruth};

/// Periods of 100 ms in a tick.
const PERIODS: u64 = 10;

impl Facts {
    /// A container; the one with the sandbox's id is the pause container.
    pub(super) fn container(&self, id: &str, plan: &ContainerPlan, tick: u64) -> ContainerTruth {
        let dice = Dice::new(self.plan.seed, id);
        let pause = id == self.id();
        ContainerTruth {
            id: id.to_owned(),
            name: plan.name.clone(),
            cpu: self.cpu(dice, plan, pause, tick),
            memory: memory(dice, plan, if pause { 2 << 20 } else { self.room(plan) }, tick),
            pids: if pause { 1 } else { dice.gauge("pids", 2, 12, tick) },
            block_io: if pause || self.plan.disks == 0 { Vec::new() } else { vec![block_io(dice, tick)] },
        }
    }

    fn cpu(&self, dice: Dice, plan: &ContainerPlan, pause: bool, tick: u64) -> CpuTruth {
        let vcpus = self.plan.vcpus;
        // Microseconds per tick that leave the guest mostly idle, and a container below its quota.
        let quota = plan.cpu_quota.map_or(u64::MAX, |quota| quota * PERIODS * 3 / 4);
        let share = if pause { 80 } else { (300_000 * vcpus / self.heads).min(quota).max(16) };
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
