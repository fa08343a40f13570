//! A simulated sandbox: answers its doors from the workload, and keeps its files.

mod answers;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::cri::{self, Pod};

use super::host::{self, Tree};
use super::kind::VmState;
use super::model::{Facts, Life};
use super::plan::ContainerPlan;
use super::say::lies::Lie;
use super::truth::Truth;

/// Where backwards counters begin to fall.
const BACKWARDS_FROM: u64 = 1 << 20;

/// A sandbox's state and files.
#[derive(Debug)]
pub(super) struct Simulated {
    pub(super) facts: Facts,
    pub(super) pod: Pod,
    pub(super) node: cri::Node,
    /// The directory that stands for `/run`.
    pub(super) run: Tree,
    /// The directory that stands for `/`, if procfs and cgroups are simulated, too.
    pub(super) root: Option<Tree>,
    state: Mutex<State>,
    tick: AtomicU64,
    agent_scrapes: AtomicU64,
    shim_scrapes: AtomicU64,
    hypervisor_calls: AtomicUsize,
    agent_unheard: AtomicBool,
}

#[derive(Debug)]
struct State {
    life: Life,
    lie: Option<Lie>,
    vm: VmState,
    /// The tick at which the VM was paused.
    paused_at: Option<u64>,
    cached: Option<Arc<Truth>>,
}

impl Simulated {
    pub(super) fn new(facts: Facts, life: Life, pod: Pod, node: cri::Node, trees: (Tree, Option<Tree>)) -> Self {
        let (run, root) = trees;
        let state = State { life, lie: None, vm: VmState::Running, paused_at: None, cached: None };
        Self {
            facts,
            pod,
            node,
            run,
            root,
            state: Mutex::new(state),
            tick: AtomicU64::new(0),
            agent_scrapes: AtomicU64::new(0),
            shim_scrapes: AtomicU64::new(0),
            hypervisor_calls: AtomicUsize::new(0),
            agent_unheard: AtomicBool::new(false),
        }
    }

    pub(super) fn tick(&self) -> u64 {
        self.tick.load(Ordering::Acquire)
    }

    /// What is true now.
    pub(super) fn truth(&self) -> Arc<Truth> {
        let tick = self.tick();
        let mut state = self.lock();
        if let Some(cached) = state.cached.as_ref().filter(|truth| truth.tick == tick) {
            return Arc::clone(cached);
        }
        let truth = Arc::new(self.facts.truth(tick, &state.life));
        state.cached = Some(Arc::clone(&truth));
        truth
    }

    /// What is true now but for the time.
    fn truth_at(&self, tick: u64) -> Arc<Truth> {
        Arc::new(self.facts.truth(tick, &self.lock().life))
    }

    /// The containers there are, the pause container first.
    pub(super) fn containers(&self) -> Vec<(String, ContainerPlan)> {
        self.lock().life.containers.clone()
    }

    /// A container comes: the guest has it, and so has the host what containers have there.
    pub(super) fn add_container(&self, id: &str, plan: ContainerPlan) -> anyhow::Result<()> {
        let made = [(id.to_owned(), plan.clone())];
        host::run::make_notes(&self.run, &self.facts, &made)?;
        if self.facts.plan.bundled {
            host::run::make_bundles(&self.run, &self.facts, &self.pod, &made)?;
        }
        let mut state = self.lock();
        state.cached = None;
        self.facts.add(&mut state.life, id.to_owned(), plan);
        Ok(())
    }

    /// A container goes, in the guest and on the host. Gives whether there was one.
    pub(super) fn remove_container(&self, id: &str) -> bool {
        let tick = self.tick();
        let known = {
            let mut state = self.lock();
            state.cached = None;
            self.facts.remove(&mut state.life, id, tick)
        };
        if known {
            host::run::remove_container(&self.run, &self.facts, id);
        }
        known
    }

    /// Lets time pass, and writes what it changed.
    pub(super) fn advance(&self, ticks: u64) -> anyhow::Result<()> {
        self.tick.fetch_add(ticks, Ordering::AcqRel);
        let truth = self.truth();
        if let Some(root) = &self.root {
            host::proc::rewrite(root, &self.facts, &truth)?;
            host::cgroup::rewrite(root, self.facts.host, &truth)?;
        }
        if self.facts.plan.listed {
            self.tell_runtime(&truth);
        }
        Ok(())
    }

    /// Makes everything the sandbox has on the host but its sockets.
    pub(super) fn make_files(&self) -> anyhow::Result<()> {
        self.make_directories()?;
        if self.facts.plan.bundled {
            host::run::make_bundles(&self.run, &self.facts, &self.pod, &self.containers())?;
        }
        if let Some(root) = &self.root {
            let truth = self.truth();
            host::proc::make(root, &self.facts, &truth)?;
            host::cgroup::make(root, &self.facts, &truth)?;
        }
        Ok(())
    }

    /// Makes the sandbox's own directories again.
    pub(super) fn make_directories(&self) -> anyhow::Result<()> {
        host::run::make(&self.run, &self.facts)?;
        host::run::make_notes(&self.run, &self.facts, &self.containers())
    }

    /// Removes the sandbox's own directories.
    pub(super) fn remove_directories(&self) {
        host::run::remove(&self.run, &self.facts);
    }

    /// Removes everything the sandbox has on the host.
    pub(super) fn remove_files(&self) {
        host::run::remove(&self.run, &self.facts);
        self.remove_bundles();
        if let Some(root) = &self.root {
            let truth = self.truth();
            truth.host.processes.iter().for_each(|process| host::proc::remove(root, process.pid));
            host::cgroup::remove(root, self.facts.host, &truth);
        }
    }

    /// Removes the containers' bundles.
    fn remove_bundles(&self) {
        self.containers().iter().for_each(|(id, _)| host::run::remove_container(&self.run, &self.facts, id));
    }

    pub(super) fn set_lie(&self, lie: Option<Lie>) {
        self.lock().lie = lie;
    }

    pub(super) fn set_vm_state(&self, vm: VmState) {
        let tick = self.tick();
        let mut state = self.lock();
        state.vm = vm;
        state.paused_at = (vm == VmState::Paused).then_some(tick);
    }

    pub(super) fn set_agent_heard(&self, heard: bool) {
        self.agent_unheard.store(!heard, Ordering::Release);
    }

    pub(super) fn add_oom_kill(&self) {
        let mut state = self.lock();
        state.life.oom_kills += 1;
        state.cached = None;
    }

    pub(super) fn tell_oom(&self, container: &str) -> usize {
        self.node.tell_oom(container)
    }

    /// What containerd learns from the shim's Task service.
    fn tell_runtime(&self, truth: &Truth) {
        if !self.facts.plan.runtime_measures {
            return;
        }
        for container in truth.containers.iter().skip(1) {
            let running = self.node.container(&container.id).is_some_and(|entry| entry.is_running());
            if running {
                let cpu = Duration::from_nanos(container.cpu.total_ns());
                self.node.set_usage(&container.id, cpu, container.memory.usage());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The truth as this guest tells it.
    fn told(&self) -> (Arc<Truth>, Option<Lie>) {
        let lie = self.lock().lie;
        match lie {
            Some(Lie::Backwards) => {
                let tick = BACKWARDS_FROM.saturating_sub(self.tick());
                (self.truth_at(tick), lie)
            }
            _ => (self.truth(), lie),
        }
    }
}
