//! The Task service of a shim, for containerd: it makes the sandbox and its containers, and ends them.
//!
//! What only reads is answered as every simulated sandbox answers it. Whoever is not containerd may read and no more;
//! anything else that it asks for is answered all the same, and noted as a violation.

use std::fs;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Mutex, MutexGuard, PoisonError};

use protobuf::{Message, MessageField};

use crate::kata::ledger::Violation;
use crate::kata::serve::{Answers, Call, Code, HttpReply, HttpRequest, RpcReply, plain};
use crate::kata::wire::control::{
    CreateTaskRequest, DeleteResponse, KillRequest, PidResponse, RuntimeOptions, TaskCreate, TaskDelete, TaskExit,
    TaskOOM, TaskRequest, TaskStart,
};
use crate::kata::wire::task::{ConnectResponse, PidsResponse, ProcessInfo, Status};

use super::bundle::Bundle;
use super::events::Events;
use super::machine::Machine;
use super::program::{End, KILLED};
use super::settings::Settings;
use super::tasks::{Refusal, Task, Tasks};

const SERVICE: &str = "containerd.task.v2.Task/";

/// The signal that no process can ignore. Others reach a first process only if it has asked for them, and none has.
const SIGKILL: u32 = 9;

type Reply = Result<RpcReply, Refusal>;

/// The service.
#[derive(Debug)]
pub(super) struct Service {
    sandbox: String,
    events: Events,
    state: Mutex<State>,
    /// Told when the shim is to end.
    finish: Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    tasks: Tasks,
    machine: Option<Machine>,
    /// The hypervisor's pid, also when it has ended.
    pid: u32,
}

impl Service {
    pub(super) fn new(sandbox: &str, events: Events, finish: Sender<()>) -> Self {
        Self { sandbox: sandbox.to_owned(), events, state: Mutex::default(), finish }
    }

    /// What happens by itself: time passes, programs end. Gives whether the sandbox lives, or has yet to be made.
    pub(super) fn live(&self) -> bool {
        let mut state = self.lock();
        for (id, end) in state.tasks.due() {
            self.end(&mut state, &id, end);
        }
        match &mut state.machine {
            Some(machine) => {
                if let Err(error) = machine.live() {
                    super::say(&format!("{error:#}"));
                }
                machine.runs()
            }
            None => true,
        }
    }

    /// Notes what was asked of the shim itself and must not have been.
    pub(super) fn note(&self, violations: &[Violation]) {
        let lines: String = violations.iter().map(|violation| format!("{violation}\n")).collect();
        if let (false, Some(machine)) = (lines.is_empty(), &self.lock().machine)
            && let Err(error) = machine.note(&lines)
        {
            super::say(&format!("{error:#}"));
        }
    }

    /// Ends everything, as when the shim goes.
    pub(super) fn end_all(&self) {
        let mut state = self.lock();
        let all = state.tasks.alive();
        for id in all {
            self.end(&mut state, &id, End { code: KILLED, oom: false });
        }
        state.machine = None;
    }

    fn answer(&self, method: &str, payload: &[u8]) -> Reply {
        let mut state = self.lock();
        let request: TaskRequest = decode(payload)?;
        let id = request.id.as_str();
        // Where others name a process, the first names its bundle, and the second one that is to be.
        if !request.exec_id.is_empty() && !matches!(method, "Create" | "Exec") {
            return Err((Code::NOT_FOUND, format!("no process {} in a simulated guest", request.exec_id)));
        }
        match method {
            "Create" => self.create(&mut state, &decode(payload)?),
            "Start" => {
                state.tasks.get(id)?.start()?;
                let pid = state.pid;
                self.publish(
                    "start",
                    "TaskStart",
                    &TaskStart { container_id: id.to_owned(), pid, ..Default::default() },
                );
                Ok(RpcReply::message(&PidResponse { pid, ..Default::default() }))
            }
            "State" => {
                let pid = state.pid;
                Ok(RpcReply::message(&state.tasks.get(id)?.state(pid)))
            }
            "Wait" => Ok(state.tasks.get(id)?.wait()),
            "Kill" => {
                let KillRequest { signal, .. } = decode(payload)?;
                state.tasks.get(id)?;
                if signal == SIGKILL {
                    self.end(&mut state, id, End { code: KILLED, oom: false });
                }
                Ok(empty())
            }
            "Delete" => self.delete(&mut state, id),
            "Pids" => {
                state.tasks.get(id)?;
                let process = ProcessInfo { pid: state.pid, ..Default::default() };
                Ok(RpcReply::message(&PidsResponse { processes: vec![process], ..Default::default() }))
            }
            "Connect" => Ok(RpcReply::message(&ConnectResponse {
                shim_pid: std::process::id(),
                task_pid: state.pid,
                ..Default::default()
            })),
            "Pause" | "Resume" | "ResizePty" | "CloseIO" | "Update" => state.tasks.get(id).map(|_| empty()),
            "Shutdown" => {
                if state.tasks.0.is_empty() {
                    // Whoever waits for it may have gone.
                    self.finish.send(()).ok();
                }
                Ok(empty())
            }
            "Exec" => Err((Code::UNIMPLEMENTED, "nothing can be run in a simulated guest".to_owned())),
            other => Err((Code::UNIMPLEMENTED, format!("{other} method"))),
        }
    }

    fn create(&self, state: &mut State, request: &CreateTaskRequest) -> Reply {
        let CreateTaskRequest { id, bundle: path, options, .. } = request;
        let failed = |error: anyhow::Error| (Code::INTERNAL, format!("{error:#}"));
        let bundle = Bundle::read(Path::new(path), id).map_err(failed)?;
        if bundle.sandbox != self.sandbox {
            return Err((Code::INVALID_ARGUMENT, format!("{id} is not a container of sandbox {}", self.sandbox)));
        }
        match &state.machine {
            Some(_) if bundle.is_sandbox() => return Err((Code::ALREADY_EXISTS, format!("{id} is there"))),
            Some(machine) => machine.add(&bundle).map_err(failed)?,
            None if bundle.is_sandbox() => {
                let options: RuntimeOptions = decode(&options.value)?;
                let settings = Settings::read(Path::new(&options.config_path)).map_err(failed)?;
                let machine = Machine::boot(settings, &bundle).map_err(failed)?;
                state.pid = machine.pid();
                state.machine = Some(machine);
            }
            None => return Err((Code::FAILED_PRECONDITION, format!("sandbox {} does not run", self.sandbox))),
        }
        state.tasks.0.insert(id.clone(), Task::new(bundle, request));
        let pid = state.pid;
        let event = TaskCreate { container_id: id.clone(), bundle: path.clone(), pid, ..Default::default() };
        self.publish("create", "TaskCreate", &event);
        Ok(RpcReply::message(&PidResponse { pid, ..Default::default() }))
    }

    fn delete(&self, state: &mut State, id: &str) -> Reply {
        let task = state.tasks.get(id)?;
        // One that was never started has not ended, and goes all the same.
        let (end, at) = match (task.status, task.exit()) {
            (_, Some(exit)) => exit,
            (Status::CREATED, None) => (End { code: 0, oom: false }, Default::default()),
            _ => return Err((Code::FAILED_PRECONDITION, format!("{id} runs still"))),
        };
        state.tasks.0.remove(id);
        if id == self.sandbox {
            state.machine = None;
        } else if let Some(machine) = &state.machine {
            machine.remove(id);
        }
        let (pid, exit_status, exited_at) = (state.pid, end.code, MessageField::some(at));
        let event = TaskDelete {
            container_id: id.to_owned(),
            pid,
            exit_status,
            exited_at: exited_at.clone(),
            ..Default::default()
        };
        self.publish("delete", "TaskDelete", &event);
        Ok(RpcReply::message(&DeleteResponse { pid, exit_status, exited_at, ..Default::default() }))
    }

    /// A task ends, and with the sandbox's own all others.
    fn end(&self, state: &mut State, id: &str, end: End) {
        let ids = if id == self.sandbox { state.tasks.alive() } else { vec![id.to_owned()] };
        for id in ids {
            let Some(task) = state.tasks.0.get_mut(&id).filter(|task| task.exit().is_none()) else { continue };
            if end.oom {
                // Before the exit, or the runtime would take it for any other.
                self.publish("oom", "TaskOOM", &TaskOOM { container_id: id.clone(), ..Default::default() });
                state.machine.iter().for_each(Machine::add_oom_kill);
            }
            task.end(end);
            let event = TaskExit {
                container_id: id.clone(),
                id,
                pid: state.pid,
                exit_status: end.code,
                exited_at: task.exit().map(|(_, at)| at).into(),
                ..Default::default()
            };
            self.publish("exit", "TaskExit", &event);
        }
    }

    fn publish(&self, topic: &str, kind: &str, event: &impl Message) {
        // containerd may be away: it asks for what it has missed when it is back.
        if let Err(error) = self.events.publish(&format!("/tasks/{topic}"), kind, event) {
            super::say(&format!("{kind} is not told: {error:#}"));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answers for Service {
    fn task(&self, call: &Call<'_>) -> RpcReply {
        let Some(method) = call.route.strip_prefix(SERVICE) else {
            let service = call.route.split('/').next().unwrap_or_default();
            return RpcReply::Status(Code::UNIMPLEMENTED, format!("service {service}"));
        };
        if method == "Stats"
            && let Some(machine) = &self.lock().machine
        {
            return machine.ask(call);
        }
        self.answer(method, call.payload).unwrap_or_else(|(code, text)| RpcReply::Status(code, text))
    }

    fn obeys(&self, pid: i32) -> bool {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == "containerd")
    }

    fn agent(&self, _call: &Call<'_>) -> RpcReply {
        RpcReply::Silence
    }

    fn shim(&self, _request: &HttpRequest) -> HttpReply {
        HttpReply::Bytes(plain(404, ""))
    }

    fn hypervisor(&self, _request: &HttpRequest) -> HttpReply {
        HttpReply::Bytes(plain(404, ""))
    }

    fn died(&self, _of: &str) {}
}

/// `google.protobuf.Empty`.
fn empty() -> RpcReply {
    RpcReply::Payload(Vec::new())
}

fn decode<M: Message>(payload: &[u8]) -> Result<M, Refusal> {
    M::parse_from_bytes(payload).map_err(|error| (Code::INVALID_ARGUMENT, error.to_string()))
}
