//! Pods that come and go. As many live at any time as at any other, so that what is held for them is no trend.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use kata_pulse_simulator::kata::{Endpoint, Fault};

use crate::node::RunningPod;
use crate::stage::Stage;

/// Pods that stay, and pods that are replaced, oldest first; of each kind.
#[derive(Clone, Copy, Debug)]
pub struct Population {
    pub kata_staying: usize,
    pub kata_passing: usize,
    pub runc_staying: usize,
    pub runc_passing: usize,
}

/// The pods of the node.
#[derive(Debug)]
pub struct Pods {
    pub staying: Vec<RunningPod>,
    /// Of runc and of Kata.
    passing: [VecDeque<RunningPod>; 2],
    made: usize,
}

impl Pods {
    /// Those who stay.
    pub fn staying(stage: &Stage, population: Population) -> anyhow::Result<Self> {
        let mut pods = Self { staying: Vec::new(), passing: [VecDeque::new(), VecDeque::new()], made: 0 };
        for (kata, count) in [(true, population.kata_staying), (false, population.runc_staying)] {
            for _ in 0..count {
                let pod = pods.make(stage, kata)?;
                pods.staying.push(pod);
            }
        }
        Ok(pods)
    }

    /// Adds those that will be replaced.
    pub fn let_pass(&mut self, stage: &Stage, population: Population) -> anyhow::Result<()> {
        for (kata, count) in [(true, population.kata_passing), (false, population.runc_passing)] {
            for _ in 0..count {
                let pod = self.make(stage, kata)?;
                self.passing[usize::from(kata)].push_back(pod);
            }
        }
        Ok(())
    }

    /// Removes those that do not stay.
    pub fn let_go(&mut self, stage: &Stage) -> anyhow::Result<()> {
        self.passing.iter_mut().flat_map(|passing| passing.drain(..)).try_for_each(|pod| remove(stage, pod))
    }

    /// Replaces one pod after the other until the end. Gives the pods that are there then.
    pub fn come_and_go(mut self, stage: &Stage, period: Duration, mut dice: fastrand::Rng) -> Self {
        let mut next = Instant::now();
        loop {
            next += period;
            if !stage.pause(next.saturating_duration_since(Instant::now())) {
                return self;
            }
            if stage.is_lull() {
                next = Instant::now();
                continue;
            }
            let kata = dice.bool();
            if stage.expect("the node could not be changed", self.replace(stage, kata, &mut dice)).is_none() {
                return self;
            }
        }
    }

    fn replace(&mut self, stage: &Stage, kata: bool, dice: &mut fastrand::Rng) -> anyhow::Result<()> {
        if let Some(old) = self.passing[usize::from(kata)].pop_front() {
            remove(stage, old)?;
        }
        let pod = self.make(stage, kata)?;
        // Some are never well.
        if let Some(guest) = pod.guest.as_ref().filter(|_| dice.u8(..) < 26) {
            stage.ledger().fell_ill(pod.pod.pod_name());
            match dice.u8(..3) {
                0 => guest.fail(Endpoint::Agent, Fault::Flood),
                1 => guest.fail_all(&Fault::Close),
                _ => guest.flap(Duration::from_secs(1)),
            }
        }
        self.passing[usize::from(kata)].push_back(pod);
        stage.did(if kata { "Kata pods replaced" } else { "runc pods replaced" });
        Ok(())
    }

    fn make(&mut self, stage: &Stage, kata: bool) -> anyhow::Result<RunningPod> {
        self.made += 1;
        let pod = if kata { stage.node.add_kata(self.made) } else { stage.node.add_runc(self.made) }?;
        stage.ledger().added(pod.pod.pod_name(), pod.pod.id(), &pod.containers, kata);
        Ok(pod)
    }
}

fn remove(stage: &Stage, pod: RunningPod) -> anyhow::Result<()> {
    let name = pod.pod.pod_name().to_owned();
    stage.ledger().leaving(&name);
    stage.node.remove(pod)?;
    stage.ledger().removed(&name);
    Ok(())
}
