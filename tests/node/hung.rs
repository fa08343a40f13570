//! A mount that does not answer costs its own series and half a second once.

use std::fs;

use crate::support::agent::Agent;
use crate::support::exposition::Page;
use crate::support::fuse::{BLOCKS, Fuse};
use crate::{FLAGS, PATIENCE};

struct Seen {
    size: Option<f64>,
    error: Option<f64>,
    others: usize,
}

fn look(page: &Page, mountpoint: &str) -> Seen {
    let of_mount = |family: &str| page.lookup(family, &[("mountpoint", mountpoint)]);
    let others = page.matching("node_filesystem_size_bytes", &[]).len()
        - usize::from(of_mount("node_filesystem_size_bytes").is_some());
    Seen { size: of_mount("node_filesystem_size_bytes"), error: of_mount("node_filesystem_device_error"), others }
}

/// Threads that ask filesystems.
fn askers(agent: &Agent) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid())).expect("the agent lives").flatten();
    tasks.filter(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name == "statfs\n")).count()
}

#[test]
fn a_hung_filesystem_is_marked_and_never_waited_for_twice() {
    let _alone = crate::alone();
    let fuse = Fuse::mount();
    let mountpoint = fuse.point.to_str().expect("text");
    let agent = Agent::start(FLAGS);
    let well = look(&agent.page("/metrics"), mountpoint);
    let size = Some((BLOCKS * 4096) as f64);
    assert_eq!((well.size, well.error), (size, Some(0.0)));
    fuse.hang();
    for scrape in 0..5 {
        let seen = look(&agent.page("/metrics"), mountpoint);
        assert_eq!((seen.size, seen.error), (None, Some(1.0)), "scrape {scrape}");
        assert!(scrape == 0 || seen.others == well.others, "the others are there, scrape {scrape}");
        assert!(askers(&agent) <= 2, "one waits for the mount and one works");
    }
    let log = agent.log();
    let said = |text: &str| log.iter().filter(|line| line.contains(text) && line.contains(mountpoint)).count();
    assert_eq!(said("does not answer"), 1);
    fuse.answer();
    agent.wait_until("the filesystem is told of again", PATIENCE, || {
        let seen = look(&agent.page("/metrics"), mountpoint);
        (seen.size, seen.error) == (size, Some(0.0))
    });
    assert!(askers(&agent) <= 1);
}

#[test]
fn the_agent_ends_while_a_filesystem_hangs() {
    let _alone = crate::alone();
    let fuse = Fuse::mount();
    let agent = Agent::start(FLAGS);
    fuse.hang();
    agent.page("/metrics");
    agent.stop(0);
}
