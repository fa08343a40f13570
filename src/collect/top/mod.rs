//! The `top` collector: which processes use most memory and CPU time, and whose they are. Off unless asked for: it looks at
//! every process of the node. Processes in guests are not the node's; their virtual machine is one of it.

mod groups;
mod owners;

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::collect::cgroup::layout::Layout;
use crate::collect::cgroup::membership::Membership;
use crate::collect::pid_stat::{self, Stat};
use crate::collect::{CollectError, Collector, Draft, Roots};
use crate::model::inventory::Inventory;
use crate::model::top::{Cores, Group, LISTED, Owner, Process, Top};
use crate::model::units::{Bytes, Seconds};
use groups::Groups;
use owners::Owners;

/// Its name in [`crate::collect::COLLECTORS`].
pub const NAME: &str = "top";

/// Most processes looked at. `kernel.pid_max` of most nodes is below it.
const MOST: usize = 1 << 16;

/// A process is moved to its cgroup soon after it was started, and hardly ever again: it is looked after when it is twice as
/// old as the last time, or after so long.
const PLACED_FOR: Duration = Duration::from_secs(30);

/// Shortest time over which CPU time is compared: a tick is 10 ms, and a quota is given out every 100 ms.
const SPAN: Duration = Duration::from_secs(1);

/// Reads `stat` of every process, and `cgroup` of those whose place is not known.
#[derive(Debug)]
pub struct Tops {
    roots: Arc<Roots>,
    layout: Option<Layout>,
    membership: Membership,
    known: HashMap<u32, Known>,
    owners: Owners,
    /// The inventory that the owners are of.
    generation: Option<u64>,
    groups: Option<Groups>,
    /// When ticks were last noted for comparison.
    noted: Option<Instant>,
    boot: Option<Seconds>,
}

/// What is known of a process.
#[derive(Debug)]
struct Known {
    start: u64,
    parent: u32,
    comm: Arc<str>,
    state: char,
    threads: u64,
    ticks: u64,
    resident: Bytes,
    /// Ticks when they were last noted; `None` for one that came later.
    noted: Option<u64>,
    /// Ticks that its groups have.
    counted: u64,
    cores: Cores,
    cgroup: Option<String>,
    placed: Option<Placed>,
    owner: Arc<Owner>,
    /// It was there in the last pass.
    alive: bool,
}

/// When its cgroup was read, and how long that is good for.
#[derive(Clone, Copy, Debug)]
struct Placed {
    at: Instant,
    good_for: Duration,
}

impl Tops {
    /// A collector that has read nothing yet. Without `groups` there are none in what it gives.
    pub fn new(roots: Arc<Roots>, groups: bool) -> Self {
        Self {
            roots,
            layout: None,
            membership: Membership::default(),
            known: HashMap::new(),
            owners: Owners::default(),
            generation: None,
            groups: groups.then(Groups::default),
            noted: None,
            boot: None,
        }
    }

    /// Looks at every process and forgets those that have ended. Gives how many there was no room for.
    fn look(&mut self) -> Result<usize, CollectError> {
        let page = procfs::page_size();
        let nobody = self.owners.node();
        let known = &mut self.known;
        known.values_mut().for_each(|process| process.alive = false);
        let mut left_out = 0;
        let looked = pid_stat::each(&self.roots.proc, |pid, stat| {
            let full = known.len() >= MOST;
            match known.get_mut(&pid) {
                _ if stat.has_ended() => {}
                Some(process) if process.start == stat.start => process.update(stat, page),
                None if full => left_out += 1,
                _ => _ = known.insert(pid, Known::new(stat, page, Arc::clone(&nobody))),
            }
        });
        looked.map_err(|error| CollectError::Read(format!("{}: {error}", self.roots.proc.display())))?;
        known.retain(|_, process| process.alive);
        Ok(left_out)
    }

    /// Sees how busy each process is: since ticks were last noted, or since it was started. Who asks again too soon is told
    /// the same.
    fn compare(&mut self, uptime: f64) {
        let elapsed = self.noted.map(|noted| noted.elapsed());
        let due = elapsed.is_none_or(|elapsed| elapsed >= SPAN);
        for process in self.known.values_mut() {
            match (process.noted, elapsed) {
                (Some(noted), Some(elapsed)) if due => {
                    process.cores = cores(process.ticks.saturating_sub(noted), elapsed.as_secs_f64());
                }
                (Some(_), Some(_)) => {}
                _ => process.cores = cores(process.ticks, process.age(uptime)),
            }
            if due {
                process.noted = Some(process.ticks);
            }
        }
        if due {
            self.noted = Some(Instant::now());
        }
    }

    /// Finds out whose each process is. The kernel's threads are nobody's.
    fn place(&mut self, inventory: &Inventory, uptime: f64) {
        let is_new = self.generation != Some(inventory.generation);
        if is_new {
            self.owners.learn(inventory);
            self.generation = Some(inventory.generation);
        }
        if self.layout.is_none() {
            self.layout = Layout::detect(&self.roots.cgroup).ok();
        }
        let Self { roots, layout, membership, known, owners, .. } = self;
        for (pid, process) in known.iter_mut().filter(|(_, process)| process.has_memory()) {
            let mut stray = is_new;
            if process.placed.is_none_or(|placed| placed.at.elapsed() >= placed.good_for) {
                let age = Duration::try_from_secs_f64(process.age(uptime)).unwrap_or_default();
                let placed = Placed { at: Instant::now(), good_for: age.min(PLACED_FOR) };
                stray |= process.placed.replace(placed).is_none();
                let cgroup = layout.as_ref().and_then(|layout| membership.of_process(layout, &roots.proc, *pid));
                if process.cgroup != cgroup {
                    process.cgroup = cgroup;
                    stray = true;
                }
            }
            if stray {
                process.owner = owners.of(process.cgroup.as_deref(), &roots.proc, *pid, &process.comm);
            }
        }
    }

    fn group(&mut self) -> Vec<Group> {
        let Some(groups) = &mut self.groups else { return Vec::new() };
        for process in self.known.values_mut().filter(|process| process.has_memory()) {
            let gained = process.ticks.saturating_sub(std::mem::replace(&mut process.counted, process.ticks));
            groups.add(&process.owner, &process.comm, gained, process.resident, process.cores.used);
        }
        groups.take()
    }

    /// Pids of the first in some order.
    fn first(&self, order: impl Fn(&Known, &Known) -> Ordering) -> Vec<u32> {
        let mut all: Vec<(&u32, &Known)> = self.known.iter().collect();
        // Equals by their pids, so that a list does not change without reason.
        let order = |one: &(&u32, &Known), other: &(&u32, &Known)| order(one.1, other.1).then(one.0.cmp(other.0));
        if all.len() > LISTED {
            all.select_nth_unstable_by(LISTED, order);
            all.truncate(LISTED);
        }
        all.sort_unstable_by(order);
        all.into_iter().map(|(pid, _)| *pid).collect()
    }

    fn facts(&self, pids: &[u32], told: &mut HashMap<u32, Arc<Process>>) -> Vec<Arc<Process>> {
        let fact = |pid: &u32| {
            let known = self.known.get(pid)?;
            Some(Arc::clone(told.entry(*pid).or_insert_with(|| Arc::new(known.fact(*pid, self.boot)))))
        };
        pids.iter().filter_map(fact).collect()
    }

    /// Seconds since the node was booted.
    fn uptime(&self) -> Result<f64, CollectError> {
        let path = self.roots.proc.join("uptime");
        let content = std::fs::read_to_string(&path)
            .map_err(|error| CollectError::Read(format!("{}: {error}", path.display())))?;
        let uptime = content.split_whitespace().next().and_then(|first| first.parse().ok());
        uptime.ok_or_else(|| CollectError::Read(format!("{}: malformed", path.display())))
    }
}

impl Known {
    fn new(stat: &Stat<'_>, page: u64, owner: Arc<Owner>) -> Self {
        let mut process = Self {
            start: stat.start,
            parent: 0,
            comm: Arc::from(""),
            state: ' ',
            threads: 0,
            ticks: 0,
            resident: Bytes(0),
            noted: None,
            counted: 0,
            cores: Cores::default(),
            cgroup: None,
            placed: None,
            owner,
            alive: true,
        };
        process.update(stat, page);
        process
    }

    fn update(&mut self, stat: &Stat<'_>, page: u64) {
        let Stat { comm, state, parent, ticks, threads, start: _, resident_pages } = *stat;
        if self.comm.as_bytes() != comm {
            self.comm = printable(comm);
        }
        self.parent = parent;
        self.state = char::from(state);
        self.threads = threads;
        self.ticks = ticks;
        self.resident = Bytes::from_pages(resident_pages.unwrap_or(0), page);
        self.alive = true;
    }

    /// Whether it is a process, and no thread of the kernel.
    fn has_memory(&self) -> bool {
        self.resident.0 > 0
    }

    fn age(&self, uptime: f64) -> f64 {
        uptime - Seconds::from_ticks(self.start).as_f64()
    }

    fn fact(&self, pid: u32, boot: Option<Seconds>) -> Process {
        Process {
            pid,
            parent: self.parent,
            comm: Arc::clone(&self.comm),
            state: self.state,
            threads: self.threads,
            started_at: boot.map(|boot| boot.plus_ticks(self.start)),
            cpu: Seconds::from_ticks(self.ticks),
            cores: self.cores,
            resident: self.resident,
            owner: Arc::clone(&self.owner),
        }
    }
}

/// How busy so many ticks in so many seconds are. Less than a tick is no time.
fn cores(ticks: u64, over: f64) -> Cores {
    let over = over.max(0.01);
    Cores { used: Seconds::from_ticks(ticks).as_f64() / over, over }
}

/// A name that a process gives itself, without what would move a terminal's cursor.
fn printable(comm: &[u8]) -> Arc<str> {
    let text = String::from_utf8_lossy(comm);
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect::<String>().into()
}

impl Collector for Tops {
    fn name(&self) -> &'static str {
        NAME
    }

    fn collect(&mut self, draft: &mut Draft) -> Result<(), CollectError> {
        let uptime = self.uptime()?;
        if self.boot.is_none() {
            self.boot = self.roots.boot_time();
        }
        let left_out = self.look()?;
        self.compare(uptime);
        self.place(&draft.inventory, uptime);
        let groups = self.group();
        let (by_memory, by_cpu) = (
            self.first(|one, other| other.resident.cmp(&one.resident)),
            self.first(|one, other| other.cores.used.total_cmp(&one.cores.used)),
        );
        let mut told = HashMap::new();
        draft.top = Some(Box::new(Top {
            processes: u64::try_from(self.known.len() + left_out).unwrap_or(u64::MAX),
            by_memory: self.facts(&by_memory, &mut told),
            by_cpu: self.facts(&by_cpu, &mut told),
            groups,
        }));
        if left_out > 0 {
            return Err(CollectError::Source(format!("{left_out} processes beyond {MOST} were left out")));
        }
        Ok(())
    }

    fn forget(&mut self, inventory: &Inventory) {
        if let Some(groups) = &mut self.groups {
            groups.forget(inventory);
        }
    }
}

#[cfg(test)]
mod tests;
