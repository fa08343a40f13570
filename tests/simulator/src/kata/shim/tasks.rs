//! The tasks of a shim: one per container of the sandbox, from create over start and exit to delete.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};

use protobuf::MessageField;
use protobuf::well_known_types::timestamp::Timestamp;
use tokio::sync::oneshot;

use crate::kata::serve::{Code, RpcReply};
use crate::kata::wire::control::{CreateTaskRequest, WaitResponse};
use crate::kata::wire::task::{StateResponse, Status};

use super::bundle::Bundle;
use super::program::End;

/// A refusal, as the caller is told it.
pub(super) type Refusal = (Code, String);

/// A container as containerd sees it.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) bundle: Bundle,
    streams: [String; 3],
    terminal: bool,
    pub(super) status: Status,
    /// Open as long as it runs: containerd reads its logs from the other ends until they are closed.
    outputs: Vec<File>,
    exit: Option<(End, Timestamp)>,
    waiting: Vec<oneshot::Sender<RpcReply>>,
}

impl Task {
    /// Made and not started.
    pub(super) fn new(bundle: Bundle, request: &CreateTaskRequest) -> Self {
        let CreateTaskRequest { stdin, stdout, stderr, terminal, .. } = request;
        Self {
            bundle,
            streams: [stdin.clone(), stdout.clone(), stderr.clone()],
            terminal: *terminal,
            status: Status::CREATED,
            outputs: Vec::new(),
            exit: None,
            waiting: Vec::new(),
        }
    }

    pub(super) fn start(&mut self) -> Result<(), Refusal> {
        if self.status != Status::CREATED {
            return Err((Code::FAILED_PRECONDITION, format!("{} has been started", self.bundle.id)));
        }
        self.status = Status::RUNNING;
        let [_, stdout, stderr] = &self.streams;
        // For reading as well: opening a pipe for writing alone waits for a reader.
        let open = |path: &&String| OpenOptions::new().read(true).write(true).open(path).ok();
        self.outputs = [stdout, stderr].iter().filter(|path| !path.is_empty()).filter_map(open).collect();
        Ok(())
    }

    /// Its program's end, if it runs and the end has come.
    pub(super) fn due(&self) -> Option<End> {
        if self.status == Status::RUNNING { self.bundle.program.end() } else { None }
    }

    /// It has ended. Nothing happens if it had before.
    pub(super) fn end(&mut self, end: End) {
        if self.exit.is_none() {
            self.status = Status::STOPPED;
            self.outputs.clear();
            self.exit = Some((end, Timestamp::now()));
            for waiting in std::mem::take(&mut self.waiting) {
                // It may have given up.
                waiting.send(self.exit_reply()).ok();
            }
        }
    }

    /// How and when it ended, once it has.
    pub(super) fn exit(&self) -> Option<(End, Timestamp)> {
        self.exit.clone()
    }

    /// The answer to whoever waits for its end.
    pub(super) fn wait(&mut self) -> RpcReply {
        if self.exit.is_some() {
            return self.exit_reply();
        }
        let (end, ended) = oneshot::channel();
        self.waiting.push(end);
        RpcReply::Later(ended)
    }

    fn exit_reply(&self) -> RpcReply {
        let (end, at) = self.exit().unwrap_or((End { code: 0, oom: false }, Timestamp::default()));
        RpcReply::message(&WaitResponse {
            exit_status: end.code,
            exited_at: MessageField::some(at),
            ..WaitResponse::default()
        })
    }

    /// Its state; the pid of every container is the hypervisor's.
    pub(super) fn state(&self, pid: u32) -> StateResponse {
        let [stdin, stdout, stderr] = self.streams.clone();
        StateResponse {
            id: self.bundle.id.clone(),
            bundle: self.bundle.path.to_string_lossy().into_owned(),
            pid,
            status: self.status.into(),
            stdin,
            stdout,
            stderr,
            terminal: self.terminal,
            exit_status: self.exit.as_ref().map_or(0, |(end, _)| end.code),
            exited_at: self.exit().map(|(_, at)| at).into(),
            ..StateResponse::default()
        }
    }
}

/// All tasks by container id.
#[derive(Debug, Default)]
pub(super) struct Tasks(pub(super) BTreeMap<String, Task>);

impl Tasks {
    pub(super) fn get(&mut self, id: &str) -> Result<&mut Task, Refusal> {
        self.0.get_mut(id).ok_or_else(|| (Code::NOT_FOUND, format!("container does not exist {id}: not found")))
    }

    /// Those that have just ended.
    pub(super) fn due(&self) -> Vec<(String, End)> {
        self.0.iter().filter_map(|(id, task)| Some((id.clone(), task.due()?))).collect()
    }

    /// Those that have not ended.
    pub(super) fn alive(&self) -> Vec<String> {
        self.0.iter().filter(|(_, task)| task.exit.is_none()).map(|(id, _)| id.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kata::shim::program::Program;

    fn task(program: Program) -> Task {
        let mut bundle = Bundle::default();
        bundle.program = program;
        Task::new(bundle, &CreateTaskRequest::default())
    }

    #[test]
    fn whoever_waits_is_told_of_the_end_and_so_is_who_asks_later() {
        let mut task = task(Program::of(&["false"]));
        assert_eq!(task.due(), None, "it has not been started");
        assert!(task.start().is_ok() && task.start().is_err());
        let RpcReply::Later(mut early) = task.wait() else { panic!("it runs") };
        assert!(early.try_recv().is_err());
        task.end(task.due().expect("it ends at once"));
        task.end(End { code: 137, oom: true });
        let RpcReply::Payload(told) = early.try_recv().expect("it has ended") else { panic!("an answer") };
        let RpcReply::Payload(later) = task.wait() else { panic!("an answer at once") };
        assert_eq!(told, later);
        let state = task.state(7);
        assert_eq!((state.exit_status, state.status.enum_value_or_default(), state.pid), (1, Status::STOPPED, 7));
    }
}
