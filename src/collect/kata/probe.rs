//! One Kata sandbox: which ways lead to it, which of them answered lately, and what they say.
//!
//! A source that hung is left alone for a while, see [`Rest`]. Each question waits for the one before it: a sandbox has
//! one request in flight, whoever asks.

mod answers;
mod pass_on;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio::time::timeout_at;

use crate::collect::chain;
use crate::collect::kata::agent::AgentClient;
use crate::collect::kata::cloud_hypervisor::{self, CloudHypervisor, VmmError};
use crate::collect::kata::gate::{self, Facts, Permit, ShimScrape, Verdict};
use crate::collect::kata::guest_text::Parser;
use crate::collect::kata::rest::Rest;
use crate::collect::kata::round::{Failure, Reason};
use crate::collect::kata::shim::{self, Shim};
use crate::collect::kata::site::Site;
use crate::collect::kata::stats;
use crate::collect::kata::task::TaskClient;
use crate::collect::kata::{Measured, Options};
use crate::cri::Cri;
use crate::model::guest::{Hypervisor, Vmm};
use crate::model::identity::ContainerId;
use crate::model::inventory::{ContainerState, KataDirectory, KataRuntime, Sandbox};
use crate::model::snapshot::{KataReport, SourceState};
use crate::model::usage::Usage;
use crate::transport::{Address, DEADLINE, TransportError};
use crate::unix_http::{Fault, HttpError};
use answers::Answers;
pub use pass_on::Passed;

/// Why a source that hung is not asked.
const BACKOFF: SourceState = SourceState::Skipped("timeout_backoff");

/// Why a source is not asked once a sandbox's time is up.
const NO_TIME: SourceState = SourceState::Skipped("no_time");

/// What is remembered of one sandbox between collections.
#[derive(Debug, Default)]
pub struct Probe {
    agent: Option<AgentClient>,
    agent_rest: Rest,
    address: Option<Address>,
    agent_url: Option<String>,
    url_rest: Rest,
    /// Asking for the URL is left out in this round. It is wanted for two sources.
    url_rests: bool,
    hypervisor: Option<Hypervisor>,
    /// The guest's policy forbids its text.
    text_denied: bool,
    task: Option<TaskClient>,
    task_rest: Rest,
    cri_rest: Rest,
    shim_rest: Rest,
    vmm_rest: Rest,
    /// Containers of the inventory that the guest did not know the last time.
    unknown: HashSet<ContainerId>,
}

/// The sandbox that is asked, and what is known of it without asking.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Where things are and what may be asked.
    pub options: &'a Options,
    /// The sandbox.
    pub sandbox: &'a Sandbox,
    /// Its files.
    pub site: &'a Site,
    /// The runtime, which may know what nobody else tells.
    pub cri: &'a Cri,
    /// Until when everybody together has to have told of the sandbox.
    pub until: tokio::time::Instant,
    /// How long that was from the beginning.
    pub patience: Duration,
}

impl Probe {
    /// Asks everything that may be asked of the sandbox.
    pub async fn measure(&mut self, target: Target<'_>) -> Measured {
        let started = Instant::now();
        let mut answers = Answers::default();
        let mut vmm = None;
        self.hypervisor = target.site.hypervisor().or(self.hypervisor);
        self.url_rests = self.url_rest.is_due();
        if target.sandbox.kata.is_some() {
            vmm = self.ask_vmm(target, &mut answers).await;
        }
        if timeout_at(target.until, self.ask_guest(target, &mut answers)).await.is_err() {
            self.cut_off(target, &mut answers);
        }
        let heard = answers.heard();
        let Answers { sources, containers, containers_from, guest, guest_from, reading, unknown, asking: _, error } =
            answers;
        let outdated = unknown.iter().any(|id| !self.unknown.contains(id));
        self.unknown = unknown;
        let running = |state| state == ContainerState::Running;
        let expected = target.sandbox.containers.iter().filter(|container| running(container.state));
        let complete = expected.map(|container| &container.id).all(|id| containers.contains_key(id));
        let up = complete && (guest.is_some() || !containers.is_empty());
        let vmm_from = vmm.as_ref().map(|_| ("vmm", "vmm"));
        let values_from = [("containers", containers_from), ("guest", guest_from)];
        let values_from = values_from.into_iter().filter_map(|(what, source)| Some((what, source?))).chain(vmm_from);
        let report = KataReport {
            hypervisor: self.hypervisor,
            took: started.elapsed(),
            sources,
            values_from: values_from.collect(),
            dropped: reading.dropped(),
            guest,
            vmm,
            ..KataReport::default()
        };
        let failure = (!up).then(|| Failure {
            reason: self.reason(&report, containers.is_empty()),
            error: error.unwrap_or_else(|| "not every container answered".to_owned()),
        });
        Measured { report, containers, failure, heard, outdated }
    }

    /// Why a sandbox that is not up is not.
    fn reason(&self, report: &KataReport, silent: bool) -> Reason {
        let rests = [&self.agent_rest, &self.url_rest, &self.task_rest, &self.shim_rest, &self.cri_rest];
        let of_guest = report.sources.iter().filter(|(source, _)| **source != "vmm");
        let is_left_alone = |(_, state): (&&str, &SourceState)| [BACKOFF, NO_TIME].contains(state);
        if rests.into_iter().any(Rest::has_begun) || of_guest.into_iter().any(is_left_alone) {
            Reason::Timeout
        } else if silent {
            Reason::Unreachable
        } else {
            Reason::Incomplete
        }
    }

    /// Everybody who may tell of the guest and its containers, the best first.
    async fn ask_guest(&mut self, target: Target<'_>, answers: &mut Answers) {
        if let Some(directory) = &target.sandbox.kata {
            self.ask_agent(target, directory, answers).await;
            if answers.containers.is_empty() {
                self.ask_task(target, directory, answers).await;
            } else {
                answers.note("task", SourceState::Skipped("agent_answers"));
            }
            if answers.guest.is_some() {
                answers.note("shim", SourceState::Skipped("agent_answers"));
            } else if self.text_denied {
                // The shim would ask the same agent and be refused as well, after asking it for much else.
                answers.note("shim", SourceState::Skipped("policy"));
            } else {
                self.ask_shim(target, directory, answers).await;
            }
        } else {
            answers.note("agent", SourceState::Failed("the sandbox's directory is not to be seen".to_owned()));
        }
        if answers.containers.is_empty() {
            self.ask_cri(target, answers).await;
        }
    }

    /// The sandbox's time is up in the middle of a question. What was answered before it stays; who was being asked is
    /// left alone for a while, and who was not asked any more is said not to have been.
    fn cut_off(&mut self, target: Target<'_>, answers: &mut Answers) {
        let asked = answers.asking.unwrap_or("agent");
        match asked {
            "task" => {
                self.task_rest.begin();
                self.task = None;
            }
            "shim" => self.shim_rest.begin(),
            "cri" => self.cri_rest.begin(),
            _ => {
                self.agent_rest.begin();
                self.agent = None;
            }
        }
        answers.note(asked, SourceState::Failed(format!("not finished within {:.1?}", target.patience)));
        for source in ["task", "shim"] {
            if !answers.sources.contains_key(source) {
                answers.note(source, NO_TIME);
            }
        }
    }

    /// The agent: the guest's own text and every container's stats, over one connection.
    async fn ask_agent(&mut self, target: Target<'_>, directory: &KataDirectory, answers: &mut Answers) {
        if self.agent_rest.is_due() {
            return answers.note("agent", BACKOFF);
        }
        answers.asking = Some("agent");
        let reused = self.agent.as_ref().is_some_and(AgentClient::is_open);
        if let Err(state) = self.connect_agent(target, directory).await {
            return answers.note("agent", state);
        }
        let Some(agent) = &mut self.agent else { return };
        let mut outcome = converse(agent, target.sandbox, &mut self.text_denied, answers).await;
        if reused && answers.containers.is_empty() && matches!(outcome, Err(TransportError::Broken { .. })) {
            // The other side had closed the connection while nobody used it.
            self.agent = None;
            if let Err(state) = self.connect_agent(target, directory).await {
                return answers.note("agent", state);
            }
            let Some(agent) = &mut self.agent else { return };
            outcome = converse(agent, target.sandbox, &mut self.text_denied, answers).await;
        }
        answers.note("agent", outcome.as_ref().map_or_else(failed, |()| SourceState::Up));
        self.judge_agent(outcome.as_ref().err());
    }

    /// Makes sure that there is a connection to the agent.
    async fn connect_agent(&mut self, target: Target<'_>, directory: &KataDirectory) -> Result<(), SourceState> {
        if self.agent.as_ref().is_some_and(AgentClient::is_open) {
            return Ok(());
        }
        let address = self.find_address(target, directory).await?;
        match AgentClient::connect(&address, DEADLINE).await {
            Ok(agent) => {
                self.agent = Some(agent);
                Ok(())
            }
            Err(error) => {
                if error.is_timeout() {
                    match address {
                        Address::Vsock(_) => self.agent_rest.begin_longer(),
                        _ => self.agent_rest.begin(),
                    }
                }
                // The machine may have been made anew under another address.
                self.address = None;
                target.site.distrust();
                Err(failed(&error))
            }
        }
    }

    /// Draws the consequences of a conversation.
    fn judge_agent(&mut self, error: Option<&TransportError>) {
        match error {
            None => self.agent_rest.end(),
            Some(error) => {
                if error.is_timeout() {
                    self.agent_rest.begin();
                }
                self.agent = None;
            }
        }
    }

    /// The agent's address, from the sockets that are there, else from the shim.
    async fn find_address(&mut self, target: Target<'_>, directory: &KataDirectory) -> Result<Address, SourceState> {
        if let Some(address) = &self.address {
            return Ok(address.clone());
        }
        if let Some((socket, _)) = &target.site.agent_socket {
            return Ok(self.address.insert(Address::HybridVsock(socket.clone())).clone());
        }
        let url = match target.site.notes.as_ref().and_then(|notes| notes.agent_url.clone()) {
            Some(url) => url,
            None => self.find_url(directory).await?,
        };
        self.hypervisor = self.hypervisor.or(gate::hypervisor(&facts(target, directory, &url)));
        match Address::of_agent(&url, &target.options.run_dir) {
            Ok(address) => Ok(self.address.insert(address).clone()),
            Err(error) => {
                // A shim knows its agent's address only once the guest is up.
                self.agent_url = None;
                Err(SourceState::Failed(error.to_string()))
            }
        }
    }

    /// The agent's URL as the shim tells it: asking is safe with every shim.
    async fn find_url(&mut self, directory: &KataDirectory) -> Result<String, SourceState> {
        if let Some(url) = &self.agent_url {
            return Ok(url.clone());
        }
        if self.url_rests || self.url_rest.has_begun() {
            return Err(BACKOFF);
        }
        match monitor(directory).agent_url(DEADLINE).await {
            Ok(url) => Ok(self.agent_url.insert(url).clone()),
            Err(error) => {
                if is_timeout(&error) {
                    self.url_rest.begin();
                }
                Err(SourceState::Failed(chain(&error)))
            }
        }
    }

    /// The shim's Task service: every container's stats, as far as a shim gets them right.
    async fn ask_task(&mut self, target: Target<'_>, directory: &KataDirectory, answers: &mut Answers) {
        if self.task_rest.is_due() {
            return answers.note("task", BACKOFF);
        }
        answers.asking = Some("task");
        let reused = self.task.as_ref().is_some_and(TaskClient::is_open);
        let mut outcome = self.ask_for_stats(target, directory, answers).await;
        if reused && answers.containers.is_empty() && matches!(outcome, Err(TransportError::Broken { .. })) {
            // The shim had closed the connection while nobody used it.
            self.task = None;
            outcome = self.ask_for_stats(target, directory, answers).await;
        }
        let state = outcome.unwrap_or_else(|error| {
            if error.is_timeout() {
                self.task_rest.begin();
            }
            failed(&error)
        });
        if state != SourceState::Up {
            self.task = None;
        }
        answers.note("task", state);
    }

    /// Every container's stats over the connection to the Task service, which is made if there is none.
    async fn ask_for_stats(
        &mut self,
        target: Target<'_>,
        directory: &KataDirectory,
        answers: &mut Answers,
    ) -> Result<SourceState, TransportError> {
        let task = match self.task.take().filter(TaskClient::is_open) {
            Some(task) => task,
            None => {
                let Some(address) = &target.site.task else { return Ok(SourceState::Skipped("no_bundle")) };
                let connected = TaskClient::connect(address, DEADLINE).await;
                connected.inspect_err(|_| target.site.distrust())?
            }
        };
        let task = self.task.insert(task);
        let mut state = SourceState::Up;
        for id in ids(target.sandbox) {
            match task.stats(id.as_str()).await {
                Ok(any) => match stats::of_task(&any, directory.runtime) {
                    Ok(usage) => answers.container("task", id, usage),
                    Err(error) => state = SourceState::Failed(chain(&error)),
                },
                Err(TransportError::UnknownId { .. }) => drop(answers.unknown.insert(id)),
                Err(error) => return Err(error),
            }
        }
        Ok(state)
    }

    /// The runtime, which asks the shim in turn: the last resort, for a node whose bundles this process cannot see. A
    /// shim that hangs is not asked by this detour either.
    async fn ask_cri(&mut self, target: Target<'_>, answers: &mut Answers) {
        if !target.cri.is_configured() {
            return;
        }
        if self.cri_rest.is_due() || self.task_rest.has_begun() || answers.sources.get("task") == Some(&BACKOFF) {
            return answers.note("cri", BACKOFF);
        }
        answers.asking = Some("cri");
        match target.cri.sandbox_container_stats(target.sandbox.id.as_str()).await {
            Ok(all) => {
                for one in all {
                    let Some(attributes) = &one.attributes else { continue };
                    let usage = stats::of_cri(&one);
                    if usage != Usage::default() {
                        answers.container("cri", ContainerId::from(attributes.id.as_str()), usage);
                    }
                }
                let nothing = SourceState::Failed("the runtime has no stats of the sandbox's containers".to_owned());
                answers.note("cri", if answers.containers.is_empty() { nothing } else { SourceState::Up });
            }
            Err(error) => {
                if error.is_timeout() {
                    self.cri_rest.begin();
                }
                answers.note("cri", SourceState::Failed(error.chain()));
            }
        }
    }

    /// Leave to ask the shim for its `/metrics`, or why there is none.
    async fn permit(&mut self, target: Target<'_>, directory: &KataDirectory) -> Result<Permit, SourceState> {
        if target.options.shim_scrape == ShimScrape::Off {
            return Err(SourceState::Skipped("switched_off"));
        }
        if self.shim_rest.is_due() {
            return Err(BACKOFF);
        }
        let url = match directory.runtime {
            KataRuntime::Go => String::new(),
            KataRuntime::Rs => self.find_url(directory).await?,
        };
        let verdict = Verdict::of(&facts(target, directory, &url));
        verdict.permit(target.options.shim_scrape).ok_or(SourceState::Skipped(match verdict {
            Verdict::Unsafe(reason) => reason.as_str(),
            Verdict::Safe | Verdict::Unknown => "unknown_shim",
        }))
    }

    /// The shim's `/metrics`, for the guest's text in it, if the shim survives the question.
    async fn ask_shim(&mut self, target: Target<'_>, directory: &KataDirectory, answers: &mut Answers) {
        answers.asking = Some("shim");
        let permit = match self.permit(target, directory).await {
            Ok(permit) => permit,
            Err(state) => return answers.note("shim", state),
        };
        match monitor(directory).guest(shim::DEADLINE, &permit).await {
            Ok(parsed) => {
                answers.reading = parsed.report;
                if parsed.guest.agent_scrapes.is_some() {
                    (answers.guest, answers.guest_from) = (Some(parsed.guest), Some("shim"));
                    answers.note("shim", SourceState::Up);
                } else {
                    answers.note("shim", SourceState::Failed("the shim does not reach its agent".to_owned()));
                }
            }
            Err(error) => {
                if is_timeout(&error) {
                    self.shim_rest.begin();
                }
                answers.note("shim", SourceState::Failed(chain(&error)));
            }
        }
    }

    /// Cloud Hypervisor's counters, where it has a socket.
    async fn ask_vmm(&mut self, target: Target<'_>, answers: &mut Answers) -> Option<Vmm> {
        let socket = target.site.vmm_socket.clone()?;
        if self.vmm_rest.is_due() {
            answers.note("vmm", BACKOFF);
            return None;
        }
        match CloudHypervisor::new(socket).vmm(cloud_hypervisor::DEADLINE.min(target.patience / 2)).await {
            Ok(vmm) => {
                answers.note("vmm", SourceState::Up);
                Some(vmm)
            }
            Err(error) => {
                if matches!(&error, VmmError::Http(error) if is_timeout(error)) {
                    self.vmm_rest.begin();
                }
                answers.note("vmm", SourceState::Failed(chain(&error)));
                None
            }
        }
    }
}

/// What the gate judges by.
fn facts<'a>(target: Target<'a>, directory: &KataDirectory, agent_url: &'a str) -> Facts<'a> {
    Facts {
        runtime: directory.runtime,
        sandbox: target.sandbox.id.as_str(),
        agent_url,
        hypervisor_type: target.site.notes.as_ref().and_then(|notes| notes.hypervisor_type.as_deref()),
        has_root: target.site.has_root,
    }
}

/// Asks the agent all there is to ask. An error ends the conversation; what was learnt before it stays.
async fn converse(
    agent: &mut AgentClient,
    sandbox: &Sandbox,
    text_denied: &mut bool,
    answers: &mut Answers,
) -> Result<(), TransportError> {
    for id in ids(sandbox) {
        match agent.container_stats(id.as_str()).await {
            Ok(stats) => answers.container("agent", id, stats::of_agent(&stats)),
            // A container that has just ended, if it is not lost.
            Err(TransportError::UnknownId { .. }) => drop(answers.unknown.insert(id)),
            Err(error) => return Err(error),
        }
    }
    if *text_denied {
        answers.note("guest", SourceState::Skipped("policy"));
        return Ok(());
    }
    match agent.guest_metrics(|text| Parser::parse(text.as_bytes())).await {
        Ok(parsed) => {
            answers.reading = parsed.report;
            (answers.guest, answers.guest_from) = (Some(parsed.guest), Some("agent"));
            answers.note("guest", SourceState::Up);
            Ok(())
        }
        Err(TransportError::Denied { .. }) => {
            *text_denied = true;
            answers.note("guest", SourceState::Skipped("policy"));
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Ids the guest knows: the running containers', and the sandbox's for its pause container.
fn ids(sandbox: &Sandbox) -> Vec<ContainerId> {
    let running = sandbox.containers.iter().filter(|container| container.state == ContainerState::Running);
    let mut ids: Vec<ContainerId> = running.map(|container| container.id.clone()).collect();
    ids.push(ContainerId::from(sandbox.id.as_str()));
    ids
}

fn monitor(directory: &KataDirectory) -> Shim {
    Shim::new(directory.path.join("shim-monitor.sock"))
}

fn is_timeout(error: &HttpError) -> bool {
    matches!(error.fault, Fault::Late(_))
}

fn failed(error: &TransportError) -> SourceState {
    match error {
        TransportError::NotPermitted { .. } => SourceState::Skipped("not_permitted"),
        TransportError::Denied { .. } => SourceState::Skipped("policy"),
        _ => SourceState::Failed(chain(error)),
    }
}
