//! What goes wrong: sandboxes fall ill and are healed, lie, or flood; the runtime restarts, hangs, refuses; the agent is
//! told to reload.

use std::time::{Duration, Instant};

use kata_pulse_simulator::cri::{self, Method};
use kata_pulse_simulator::kata::{Endpoint, Fault, KataSandbox, Lie};
use tonic::Code;

use crate::agent::Agent;
use crate::stage::Stage;

const DOORS: [Endpoint; 4] = [Endpoint::Agent, Endpoint::Task, Endpoint::Shim, Endpoint::Hypervisor];

const FAULTS: [Fault; 12] = [
    Fault::Hang,
    Fault::Delay(Duration::from_millis(700)),
    Fault::Drip(Duration::from_millis(200)),
    Fault::CutShort,
    Fault::Close,
    Fault::Flood,
    Fault::InvalidUtf8,
    Fault::Garbage,
    Fault::Oversize,
    Fault::Fail,
    Fault::Refuse,
    Fault::EndlessHandshake,
];

const LIES: [Lie; 7] = [
    Lie::HostileLabels,
    Lie::HostileFamilies,
    Lie::OddNumbers,
    Lie::HugeNumbers,
    Lie::ManyDevices(200),
    Lie::ManySeries(2000),
    Lie::Backwards,
];

/// How long an illness of a sandbox lasts.
const ILLNESS: std::ops::Range<u64> = 2..12;

/// Pause between two things that go wrong with sandboxes.
const SICKENING: Duration = Duration::from_millis(1500);

/// How long the runtime and the configuration are left alone between two episodes: a reload begins a discovery, which an
/// ill runtime would leave without names.
const CALM: Duration = Duration::from_secs(7);

/// Lets sandboxes fall ill and be healed, and those that lie tell another lie, until the end. All are well then.
pub fn sicken(stage: &Stage, patients: &[KataSandbox], liars: &[KataSandbox], mut dice: fastrand::Rng) {
    liars.iter().for_each(|liar| stage.ledger().lied(liar.pod().1));
    let mut ill: Vec<(Instant, &KataSandbox)> = Vec::new();
    while stage.pause(SICKENING) {
        let now = Instant::now();
        let lull = stage.is_lull();
        ill.retain(|(until, sandbox)| {
            let over = lull || *until < now;
            if over {
                heal(stage, sandbox);
            }
            !over
        });
        if lull {
            liars.iter().for_each(|liar| liar.lie(None));
            continue;
        }
        if let Some(liar) = dice.choice(liars) {
            liar.lie(dice.choice(LIES));
            stage.did("lies told");
        }
        let well = |sandbox: &&KataSandbox| ill.iter().all(|(_, other)| other.id() != sandbox.id());
        let well: Vec<&KataSandbox> = patients.iter().filter(well).collect();
        if let Some(sandbox) = dice.choice(well) {
            sicken_one(stage, sandbox, &mut dice);
            ill.push((now + Duration::from_secs(dice.u64(ILLNESS)), sandbox));
        }
    }
    patients.iter().for_each(|sandbox| heal(stage, sandbox));
}

fn sicken_one(stage: &Stage, sandbox: &KataSandbox, dice: &mut fastrand::Rng) {
    stage.ledger().fell_ill(sandbox.pod().1);
    let fault = dice.choice(FAULTS).unwrap_or(Fault::Hang);
    stage.did(&format!("sandbox fault: {}", word(&fault)));
    match dice.u8(..4) {
        0 => sandbox.fail_all(&fault),
        1 => {
            DOORS.into_iter().for_each(|door| sandbox.cut_connections(door));
            sandbox.fail(Endpoint::Agent, fault);
        }
        _ => sandbox.fail(dice.choice(DOORS).unwrap_or(Endpoint::Agent), fault),
    }
}

fn heal(stage: &Stage, sandbox: &KataSandbox) {
    sandbox.heal_all();
    stage.ledger().recovered(sandbox.pod().1);
}

/// The name of a fault without what it carries.
fn word(fault: &Fault) -> String {
    format!("{fault:?}").split('(').next().unwrap_or_default().to_owned()
}

/// Lets the runtime go wrong, and the agent reload, in turn, until the end.
pub fn disturb(stage: &Stage, mut dice: fastrand::Rng) {
    loop {
        if !stage.pause(CALM) {
            return;
        }
        if stage.is_lull() {
            continue;
        }
        let told = if dice.bool() { reload(stage, &mut dice) } else { disturb_runtime(stage, &mut dice) };
        stage.expect("the node could not be disturbed", told);
    }
}

/// A reload with another setting, or with a file that is none, which must change nothing.
fn reload(stage: &Stage, dice: &mut fastrand::Rng) -> anyhow::Result<()> {
    let (name, settings) = match dice.u8(..4) {
        0 => ("SIGHUP, broken file", "max-age-secs: [never\n".to_owned()),
        1 => ("SIGHUP, max age 0", Agent::settings("0")),
        _ => ("SIGHUP, max age 0.2", Agent::settings("0.2")),
    };
    stage.did(name);
    stage.agent.reload(&settings)
}

/// The runtime is ill for some seconds and well again.
fn disturb_runtime(stage: &Stage, dice: &mut fastrand::Rng) -> anyhow::Result<()> {
    stage.ledger().runtime_fell_ill();
    let lists = [Method::ListPodSandbox, Method::ListContainers];
    let fail = |fault: &cri::Fault| lists.into_iter().for_each(|list| stage.node.runtime().fail(list, fault.clone()));
    let name = match dice.u8(..7) {
        0 => {
            stage.node.runtime().restart()?;
            "restarts"
        }
        1 => {
            stage.node.runtime().crash();
            "crashes"
        }
        2 => {
            stage.node.runtime().cut_connections();
            "cuts connections"
        }
        3 => {
            stage.node.registry.set_event_stream(false);
            stage.node.runtime().cut_connections();
            "loses its event stream"
        }
        4 => {
            fail(&cri::Fault::Hang);
            "hangs"
        }
        5 => {
            fail(&cri::Fault::Delay(Duration::from_millis(800)));
            "is slow"
        }
        _ => {
            fail(&cri::Fault::Status(Code::Unavailable, "not now".to_owned()));
            "refuses"
        }
    };
    stage.did(&format!("runtime {name}"));
    stage.pause(Duration::from_secs(dice.u64(1..6)));
    lists.into_iter().for_each(|list| stage.node.runtime().heal(list));
    stage.node.registry.set_event_stream(true);
    // Also ends what goes on hanging, and starts what has crashed.
    stage.node.runtime().restart()?;
    stage.ledger().runtime_recovered();
    Ok(())
}
