//! The `fd` collector: open descriptors and sockets of every process of a row.
//!
//! Off by default. It is a readdir and a readlink per descriptor of every process on the node, the cost that hurts
//! cAdvisor most; on a node with busy servers it outweighs all other collectors together.

use std::sync::Arc;

use crate::collect::held::Budget;
use crate::collect::procs::Procs;
use crate::collect::{CollectError, Collector, Draft, Roots};
use crate::model::inventory::{Inventory, Kind};
use crate::model::usage::Descriptors;
use crate::open_fds;

/// Descriptors looked at in one collection, over all rows. Beyond it rows get no count, and the collector says so.
const MAX_WALK: u64 = 200_000;

/// Walks `/proc/<pid>/fd`.
#[derive(Debug)]
pub struct DescriptorWalk {
    procs: Procs,
}

impl DescriptorWalk {
    /// A collector that has read nothing yet.
    pub fn new(roots: Arc<Roots>, budget: Arc<Budget>) -> Self {
        Self { procs: Procs::holding(roots, budget) }
    }

    fn of_process(&self, pid: u32) -> Option<Descriptors> {
        let (open, sockets) = open_fds::with_sockets(&self.procs.proc().join(format!("{pid}/fd")))?;
        Some(Descriptors { open, sockets })
    }
}

impl Collector for DescriptorWalk {
    fn name(&self) -> &'static str {
        "fd"
    }

    fn collect(&mut self, draft: &mut Draft) -> Result<(), CollectError> {
        let mut walked = 0;
        for row in draft.rows.iter_mut().filter(|row| !row.gone) {
            let (Kind::Sandbox | Kind::Container, Some(cgroup)) = (row.subject.kind, &row.subject.cgroup) else {
                continue;
            };
            if walked > MAX_WALK {
                return Err(CollectError::Source(format!("more than {MAX_WALK} open descriptors on this node")));
            }
            let mut sum = Descriptors { open: 0, sockets: 0 };
            let mut any = false;
            for process in self.procs.of(cgroup.as_str()).into_iter().filter_map(|pid| self.of_process(pid)) {
                any = true;
                sum.open += process.open;
                sum.sockets += process.sockets;
            }
            walked += sum.open;
            row.usage.descriptors = any.then_some(sum);
        }
        Ok(())
    }

    fn forget(&mut self, inventory: &Inventory) {
        self.procs.forget(inventory);
    }
}
