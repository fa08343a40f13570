//! One Kata sandbox: which ways lead to it, which of them answered lately, and what they say.
//!
//! A source that hung is left alone in the next collection and tried again in the one after: a guest that hangs costs
//! at most every second collection a deadline, and one that has healed is back within two.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::collect::kata::agent::AgentClient;
use crate::collect::kata::cloud_hypervisor::{self, CloudHypervisor, VmmError};
use crate::collect::kata::gate::{self, Facts, ShimScrape, Verdict};
use crate::collect::kata::guest_text::Parser;
use crate::collect::kata::shim::{self, Shim};
use crate::collect::kata::state_file::{self, SandboxState};
use crate::collect::kata::stats;
use crate::collect::kata::task::TaskClient;
use crate::collect::kata::{Measured, Options};
use crate::model::guest::{Guest, Hypervisor, Vmm};
use crate::model::identity::ContainerId;
use crate::model::inventory::{ContainerState, KataDirectory, KataRuntime, Sandbox};
use crate::model::snapshot::{KataReport, SourceState};
use crate::model::usage::Usage;
use crate::transport::{Address, DEADLINE, TransportError};
use crate::unix_http::{Fault, HttpError};

/// Largest bundle file read: an address is a hundred bytes.
const MAX_ADDRESS_BYTES: u64 = 4 << 10;

/// Longest rest of an agent whose vsock leads nowhere, in collections.
const MAX_REST: u32 = 64;

/// What is remembered of one sandbox between collections.
#[derive(Debug, Default)]
pub struct Probe {
    agent: Option<AgentClient>,
    /// Collections in which the agent is still left alone, and for how many it was the last time.
    agent_rests: Rest,
    address: Option<Address>,
    agent_url: Option<String>,
    url_rests: bool,
    hypervisor: Option<Hypervisor>,
    /// The guest's policy forbids its text.
    text_denied: bool,
    task: Option<TaskClient>,
    task_rests: bool,
    shim_rests: bool,
    vmm_rests: bool,
    /// The runtime's own notes; read until they are there, and then once.
    notes: Option<SandboxState>,
}

/// How long a source is left alone, in collections.
#[derive(Debug, Default)]
struct Rest {
    left: u32,
    last: u32,
}

impl Rest {
    /// One collection; longer each time for what hardly ever heals by itself: a vsock that leads nowhere.
    fn begin(&mut self, longer: bool) {
        self.last = if longer { (self.last * 2).clamp(1, MAX_REST) } else { 1 };
        self.left = self.last;
    }

    /// Whether the source is to be left alone now; counts one collection down.
    fn is_due(&mut self) -> bool {
        let due = self.left > 0;
        self.left = self.left.saturating_sub(1);
        due
    }
}

/// Answers gathered in one collection.
#[derive(Default)]
struct Answers {
    sources: BTreeMap<&'static str, SourceState>,
    containers: HashMap<ContainerId, Usage>,
    guest: Option<Guest>,
    error: Option<String>,
}

impl Answers {
    fn note(&mut self, source: &'static str, state: SourceState) {
        if let (SourceState::Failed(problem), None) = (&state, &self.error) {
            self.error = Some(format!("{source}: {problem}"));
        }
        self.sources.insert(source, state);
    }
}

impl Probe {
    /// Asks everything that may be asked of the sandbox.
    pub async fn measure(&mut self, options: &Options, sandbox: &Sandbox) -> Measured {
        let started = Instant::now();
        let mut answers = Answers::default();
        let mut vmm = None;
        if let Some(directory) = &sandbox.kata {
            self.read_notes(directory).await;
            self.ask_agent(options, sandbox, directory, &mut answers).await;
            if answers.containers.is_empty() {
                self.ask_task(options, sandbox, directory, &mut answers).await;
            } else {
                answers.note("task", SourceState::Skipped("agent_answers"));
            }
            if answers.guest.is_some() {
                answers.note("shim", SourceState::Skipped("agent_answers"));
            } else if self.text_denied {
                // The shim would ask the same agent and be refused as well, after asking it for much else.
                answers.note("shim", SourceState::Skipped("policy"));
            } else {
                self.ask_shim(options, sandbox, directory, &mut answers).await;
            }
            vmm = self.ask_vmm(options, sandbox, directory, &mut answers).await;
        } else {
            answers.note("agent", SourceState::Failed("the sandbox's directory is not to be seen".to_owned()));
        }
        let Answers { sources, containers, guest, error } = answers;
        let running = |state| state == ContainerState::Running;
        let expected = sandbox.containers.iter().filter(|container| running(container.state));
        let complete = expected.map(|container| &container.id).all(|id| containers.contains_key(id));
        let up = complete && (guest.is_some() || !containers.is_empty());
        let report = KataReport {
            hypervisor: self.hypervisor,
            took: started.elapsed(),
            sources,
            guest,
            vmm,
            host: None,
            overhead_memory: None,
        };
        let error = if up { String::new() } else { error.unwrap_or_else(|| "not every container answered".to_owned()) };
        Measured { report, containers, up, error }
    }

    /// Reads the runtime's state file, which it writes some time after it has made the directory.
    async fn read_notes(&mut self, directory: &KataDirectory) {
        if self.notes.is_some() {
            return;
        }
        let (runtime, path) = (directory.runtime, directory.path.clone());
        let read = tokio::task::spawn_blocking(move || state_file::read(runtime, &path)).await;
        match read {
            Ok(Ok(notes)) => {
                self.hypervisor = notes.hypervisor().or(self.hypervisor);
                self.notes = Some(notes);
            }
            Ok(Err(error)) if error.is_absent() => {}
            Ok(Err(error)) => tracing::debug!(error = chain(&error), "no state file"),
            Err(error) => tracing::error!(%error, "reading a state file failed"),
        }
    }

    /// The agent: the guest's own text and every container's stats, over one connection.
    async fn ask_agent(
        &mut self,
        options: &Options,
        sandbox: &Sandbox,
        directory: &KataDirectory,
        answers: &mut Answers,
    ) {
        if self.agent_rests.is_due() {
            return answers.note("agent", SourceState::Skipped("timeout_backoff"));
        }
        let address = match self.find_address(options, sandbox, directory).await {
            Ok(address) => address,
            Err(state) => return answers.note("agent", state),
        };
        if !self.agent.as_ref().is_some_and(AgentClient::is_open) {
            match AgentClient::connect(&address, DEADLINE).await {
                Ok(agent) => self.agent = Some(agent),
                Err(error) => {
                    if error.is_timeout() {
                        self.agent_rests.begin(matches!(address, Address::Vsock(_)));
                    }
                    // The machine may have been made anew under another address.
                    self.address = None;
                    return answers.note("agent", failed(&error));
                }
            }
        }
        let Some(agent) = &mut self.agent else { return };
        let outcome = converse(agent, sandbox, &mut self.text_denied, answers).await;
        answers.note("agent", outcome.as_ref().map_or_else(failed, |()| SourceState::Up));
        match outcome {
            Ok(()) => self.agent_rests = Rest::default(),
            Err(error) => {
                if error.is_timeout() {
                    self.agent_rests.begin(false);
                }
                self.agent = None;
            }
        }
    }

    /// The agent's address, from the sockets that are there, else from the shim.
    async fn find_address(
        &mut self,
        options: &Options,
        sandbox: &Sandbox,
        directory: &KataDirectory,
    ) -> Result<Address, SourceState> {
        if let Some(address) = &self.address {
            return Ok(address.clone());
        }
        if let Some((socket, hypervisor)) = vsock_socket(options, sandbox.id.as_str(), directory) {
            self.hypervisor = self.hypervisor.or(hypervisor);
            return Ok(self.address.insert(Address::HybridVsock(socket)).clone());
        }
        let url = match self.notes.as_ref().and_then(|notes| notes.agent_url.clone()) {
            Some(url) => url,
            None => self.find_url(directory).await?,
        };
        let facts = self.facts(sandbox, directory, &url);
        self.hypervisor = self.hypervisor.or(gate::hypervisor(&facts));
        match Address::of_agent(&url, &options.run_dir) {
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
        if std::mem::take(&mut self.url_rests) {
            return Err(SourceState::Skipped("timeout_backoff"));
        }
        match monitor(directory).agent_url(DEADLINE).await {
            Ok(url) => Ok(self.agent_url.insert(url).clone()),
            Err(error) => {
                self.url_rests = is_timeout(&error);
                Err(SourceState::Failed(chain(&error)))
            }
        }
    }

    /// What the gate judges by.
    fn facts<'a>(&'a self, sandbox: &'a Sandbox, directory: &KataDirectory, agent_url: &'a str) -> Facts<'a> {
        Facts {
            runtime: directory.runtime,
            sandbox: sandbox.id.as_str(),
            agent_url,
            hypervisor_type: self.notes.as_ref().and_then(|notes| notes.hypervisor_type.as_deref()),
            has_root: directory.path.join("root").is_dir(),
        }
    }

    /// The shim's Task service: every container's stats, as far as a shim gets them right.
    async fn ask_task(
        &mut self,
        options: &Options,
        sandbox: &Sandbox,
        directory: &KataDirectory,
        answers: &mut Answers,
    ) {
        if std::mem::take(&mut self.task_rests) {
            return answers.note("task", SourceState::Skipped("timeout_backoff"));
        }
        if !self.task.as_ref().is_some_and(TaskClient::is_open) {
            let Some(address) = task_address(options, sandbox.id.as_str()) else {
                return answers.note("task", SourceState::Skipped("no_bundle"));
            };
            match TaskClient::connect(&address, DEADLINE).await {
                Ok(task) => self.task = Some(task),
                Err(error) => {
                    self.task_rests = error.is_timeout();
                    return answers.note("task", failed(&error));
                }
            }
        }
        let Some(task) = &mut self.task else { return };
        let mut state = SourceState::Up;
        for id in ids(sandbox) {
            match task.stats(id.as_str()).await {
                Ok(any) => match stats::of_task(&any, directory.runtime) {
                    Ok(usage) => drop(answers.containers.insert(id, usage)),
                    Err(error) => state = SourceState::Failed(chain(&error)),
                },
                Err(TransportError::UnknownId { .. }) => {}
                Err(error) => {
                    self.task_rests = error.is_timeout();
                    state = failed(&error);
                    break;
                }
            }
        }
        if state != SourceState::Up {
            self.task = None;
        }
        answers.note("task", state);
    }

    /// The shim's `/metrics`, for the guest's text in it, if the shim survives the question.
    async fn ask_shim(
        &mut self,
        options: &Options,
        sandbox: &Sandbox,
        directory: &KataDirectory,
        answers: &mut Answers,
    ) {
        if options.shim_scrape == ShimScrape::Off {
            return answers.note("shim", SourceState::Skipped("switched_off"));
        }
        if std::mem::take(&mut self.shim_rests) {
            return answers.note("shim", SourceState::Skipped("timeout_backoff"));
        }
        let url = match directory.runtime {
            KataRuntime::Go => String::new(),
            KataRuntime::Rs => match self.find_url(directory).await {
                Ok(url) => url,
                Err(state) => return answers.note("shim", state),
            },
        };
        let verdict = Verdict::of(&self.facts(sandbox, directory, &url));
        let Some(permit) = verdict.permit(options.shim_scrape) else {
            let reason = match verdict {
                Verdict::Unsafe(reason) => reason.as_str(),
                Verdict::Safe | Verdict::Unknown => "unknown_shim",
            };
            return answers.note("shim", SourceState::Skipped(reason));
        };
        match monitor(directory).guest(shim::DEADLINE, &permit).await {
            Ok(parsed) if parsed.guest.agent_scrapes.is_some() => {
                answers.guest = Some(parsed.guest);
                answers.note("shim", SourceState::Up);
            }
            Ok(_) => answers.note("shim", SourceState::Failed("the shim does not reach its agent".to_owned())),
            Err(error) => {
                self.shim_rests = is_timeout(&error);
                answers.note("shim", SourceState::Failed(chain(&error)));
            }
        }
    }

    /// Cloud Hypervisor's counters, where it has a socket.
    async fn ask_vmm(
        &mut self,
        options: &Options,
        sandbox: &Sandbox,
        directory: &KataDirectory,
        answers: &mut Answers,
    ) -> Option<Vmm> {
        let socket = api_socket(options, sandbox.id.as_str(), directory)?;
        if std::mem::take(&mut self.vmm_rests) {
            answers.note("vmm", SourceState::Skipped("timeout_backoff"));
            return None;
        }
        match CloudHypervisor::new(socket).vmm(cloud_hypervisor::DEADLINE).await {
            Ok(vmm) => {
                answers.note("vmm", SourceState::Up);
                Some(vmm)
            }
            Err(error) => {
                self.vmm_rests = matches!(&error, VmmError::Http(error) if is_timeout(error));
                answers.note("vmm", SourceState::Failed(chain(&error)));
                None
            }
        }
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
            Ok(stats) => drop(answers.containers.insert(id, stats::of_agent(&stats))),
            // A container that is being made or has just ended.
            Err(TransportError::UnknownId { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    if *text_denied {
        answers.note("guest", SourceState::Skipped("policy"));
        return Ok(());
    }
    match agent.guest_metrics().await {
        Ok(text) => {
            let parsed = Parser::parse(text.as_bytes());
            answers.guest = Some(parsed.guest);
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

/// The hypervisor's socket that leads to the agent, by the names that the runtimes give it.
fn vsock_socket(options: &Options, id: &str, directory: &KataDirectory) -> Option<(PathBuf, Option<Hypervisor>)> {
    let candidates = match directory.runtime {
        KataRuntime::Go => {
            vec![(options.run_dir.join("vc/vm").join(id).join("clh.sock"), Some(Hypervisor::CloudHypervisor))]
        }
        KataRuntime::Rs => vec![
            (directory.path.join("ch-vm.sock"), Some(Hypervisor::CloudHypervisor)),
            (directory.path.join("root/kata.hvsock"), Some(Hypervisor::Dragonball)),
            (directory.path.join("kata.hvsock"), Some(Hypervisor::Firecracker)),
            (directory.path.join("vsock.sock"), Some(Hypervisor::OpenVmm)),
        ],
    };
    candidates.into_iter().find(|(path, _)| path.exists())
}

/// Cloud Hypervisor's API socket.
fn api_socket(options: &Options, id: &str, directory: &KataDirectory) -> Option<PathBuf> {
    let path = match directory.runtime {
        KataRuntime::Go => options.run_dir.join("vc/vm").join(id).join("clh-api.sock"),
        KataRuntime::Rs => directory.path.join("ch-api.sock"),
    };
    path.exists().then_some(path)
}

/// The Task service's address, from the sandbox's bundle.
fn task_address(options: &Options, id: &str) -> Option<Address> {
    let text = options.bundles.iter().find_map(|bundles| read_small(&bundles.join(id).join("address")))?;
    Address::of_task(&text, &options.run_dir).ok()
}

fn read_small(path: &Path) -> Option<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(MAX_ADDRESS_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
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

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
