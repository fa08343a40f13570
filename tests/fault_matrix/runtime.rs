//! The container runtime's socket: without it names are missing, or stay what they were; usage is served all the same.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kata_pulse_simulator::cri::{self, Method, Pod};
use tonic::Code;

use crate::support::agent::Agent;
use crate::support::exposition::{Page, backward};
use crate::support::kata::assert_none;
use crate::support::node::NamedNode;
use crate::{IN_TIME, PATIENCE, logged, start};

/// What is wrong with the runtime.
#[derive(Clone, Debug)]
enum Fault {
    /// There is no socket.
    Absent,
    /// Nobody listens at the socket.
    Refused,
    /// The socket may not be connected to.
    Denied,
    /// These calls go wrong.
    Calls(&'static [Method], cri::Fault),
    /// A list is larger than any may be.
    Huge,
    /// The runtime goes away while it is asked, and again each time it is asked anew.
    Vanishing,
    /// Somebody else listens there.
    Stranger(Stranger),
}

/// Who is not a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stranger {
    /// Takes connections and says nothing.
    Mute,
    /// Speaks, and it is no HTTP/2.
    Babbling,
    /// Speaks without end.
    Flooding,
    /// Begins like a runtime and breaks off in the middle of a frame.
    BreakingOff,
}

/// What is to be seen of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// The runtime is down: so it is said, and names are not learnt.
    Down,
    /// It answers, and what it says is of no use: names are not learnt, and it is said.
    Useless,
    /// Nothing.
    Nothing,
}

const LISTS: &[Method] = &[Method::ListPodSandbox, Method::ListContainers];
const ALL: &[Method] = &[
    Method::Version,
    Method::ListPodSandbox,
    Method::ListContainers,
    Method::PodSandboxStatus,
    Method::ContainerStatus,
    Method::ListContainerStats,
    Method::GetContainerEvents,
];
const EVENTS: &[Method] = &[Method::GetContainerEvents];

/// The table: a name, the fault, what is seen of it.
fn table() -> Vec<(&'static str, Fault, Seen)> {
    use cri::Fault as Call;
    let status = |code| Call::Status(code, "on purpose".to_owned());
    vec![
        ("absent", Fault::Absent, Seen::Down),
        ("refused", Fault::Refused, Seen::Down),
        ("denied", Fault::Denied, Seen::Down),
        ("hung", Fault::Calls(ALL, Call::Hang), Seen::Down),
        ("hung lists", Fault::Calls(LISTS, Call::Hang), Seen::Down),
        ("slow", Fault::Calls(ALL, Call::Delay(Duration::from_millis(200))), Seen::Nothing),
        ("truncated: closed instead of answers", Fault::Calls(ALL, Call::Close), Seen::Down),
        ("truncated: a frame", Fault::Stranger(Stranger::BreakingOff), Seen::Down),
        ("garbage", Fault::Stranger(Stranger::Babbling), Seen::Down),
        ("flood", Fault::Stranger(Stranger::Flooding), Seen::Down),
        ("mute", Fault::Stranger(Stranger::Mute), Seen::Down),
        ("error", Fault::Calls(LISTS, status(Code::Internal)), Seen::Useless),
        ("permission denied by the runtime", Fault::Calls(LISTS, status(Code::PermissionDenied)), Seen::Useless),
        ("unavailable", Fault::Calls(LISTS, status(Code::Unavailable)), Seen::Down),
        ("huge", Fault::Huge, Seen::Useless),
        ("vanishing", Fault::Vanishing, Seen::Down),
        ("events hung", Fault::Calls(EVENTS, Call::Hang), Seen::Nothing),
        ("events refused", Fault::Calls(EVENTS, status(Code::Unimplemented)), Seen::Nothing),
        ("events in error", Fault::Calls(EVENTS, status(Code::Internal)), Seen::Nothing),
    ]
}

/// A listener at the runtime's path.
struct Imposter {
    path: PathBuf,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Imposter {
    fn start(path: &Path, stranger: Stranger) -> Self {
        let _ = fs::remove_file(path);
        let listener = UnixListener::bind(path).expect("listen");
        let ended = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let over = Arc::clone(&over);
                std::thread::spawn(move || stranger.meet(stream, &over));
            }
        });
        Self { path: path.to_owned(), ended, thread: Some(thread) }
    }
}

impl Drop for Imposter {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        drop(UnixStream::connect(&self.path));
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it ends");
        }
        let _ = fs::remove_file(&self.path);
    }
}

impl Stranger {
    /// An error is the agent's way of leaving.
    fn meet(self, mut stream: UnixStream, over: &AtomicBool) {
        stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        stream.set_write_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        // SETTINGS, empty; then the head of a frame of data that is longer than what follows.
        let broken_off: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 1, 0, 0, 0];
        let mut left = match self {
            Self::Babbling => stream.write_all(b"220 mail.example ESMTP\r\n\xff\xfe\0\0\r\n").is_err(),
            Self::BreakingOff => {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(broken_off);
                return;
            }
            Self::Mute | Self::Flooding => false,
        };
        let endless = [0x55; 65_536];
        while !left && !over.load(Ordering::SeqCst) {
            left = match self {
                Self::Flooding => stream.write_all(&endless).is_err_and(|error| !is_patience(&error)),
                _ => match stream.read(&mut [0; 4096]) {
                    Ok(read) => read == 0,
                    Err(error) => !is_patience(&error),
                },
            };
        }
    }
}

fn is_patience(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

/// A node whose runtime is ill.
struct Cell {
    name: &'static str,
    fault: Fault,
    seen: Seen,
    node: NamedNode,
    web: Pod,
    imposter: Option<Imposter>,
}

impl Cell {
    fn new((name, fault, seen): (&'static str, Fault, Seen)) -> Self {
        let node = NamedNode::start();
        let web = Pod::new("shop", "web");
        node.run(&web, 41, &[&web.container("app")]);
        Self { name, fault, seen, node, web, imposter: None }
    }

    fn begin(&mut self) {
        let socket = self.node.runtime.path().to_owned();
        match &self.fault {
            Fault::Absent => self.node.runtime.stop(),
            Fault::Refused => self.node.runtime.crash(),
            Fault::Denied => {
                fs::set_permissions(&socket, Permissions::from_mode(0o0)).expect("forbid");
                self.node.runtime.cut_connections();
            }
            Fault::Calls(methods, fault) => {
                methods.iter().for_each(|method| self.node.runtime.fail(*method, fault.clone()));
                if self.seen != Seen::Nothing {
                    self.node.runtime.cut_connections();
                }
            }
            Fault::Huge => {
                let text = "x".repeat(17 << 20);
                self.node
                    .runtime
                    .node()
                    .add_pod(&Pod::new("shop", "huge").with_id(&"f".repeat(64)).annotation("a", &text));
            }
            Fault::Vanishing => {
                LISTS.iter().for_each(|method| self.node.runtime.fail(*method, cri::Fault::Hang));
                self.node.runtime.cut_connections();
            }
            Fault::Stranger(stranger) => {
                self.node.runtime.stop();
                self.imposter = Some(Imposter::start(&socket, *stranger));
            }
        }
    }

    fn heal(&mut self) {
        match &self.fault {
            Fault::Absent | Fault::Refused => self.node.runtime.restart().expect("the socket is ours"),
            Fault::Denied => {
                fs::set_permissions(self.node.runtime.path(), Permissions::from_mode(0o666)).expect("allow");
            }
            Fault::Calls(methods, _) => methods.iter().for_each(|method| self.node.runtime.heal(*method)),
            Fault::Huge => self.node.runtime.node().remove_pod(&"f".repeat(64)),
            Fault::Vanishing => LISTS.iter().for_each(|method| self.node.runtime.heal(*method)),
            Fault::Stranger(_) => {
                self.imposter = None;
                self.node.runtime.restart().expect("the socket is ours");
            }
        }
    }

    fn scrape(&self, agent: &Agent) -> Page {
        let started = Instant::now();
        let page = agent.page("/metrics");
        assert!(started.elapsed() < IN_TIME, "{}: a scrape took {:?}", self.name, started.elapsed());
        page
    }

    /// What is served and said while the fault lasts.
    fn check(&self, agent: &Agent, named: bool) {
        let Self { name, seen, web, .. } = self;
        let is_up = |page: &Page| page.value("kata_pulse_cri_up", &[]) == 1.0;
        let told = || agent.get("/readyz?verbose").text().contains("[-] runtime: ");
        if *seen != Seen::Nothing {
            agent.wait_until(&format!("{name}: it is told"), PATIENCE, || {
                told() && (*seen == Seen::Useless || !is_up(&self.scrape(agent)))
            });
        }
        for _ in 0..3 {
            if let Fault::Vanishing = self.fault {
                self.node.runtime.cut_connections();
            }
            let page = self.scrape(agent);
            let usage = page.lookup("container_memory_usage_bytes", &[("id", &web.cgroup())]);
            assert_eq!(usage, Some(33_554_432.0), "{name}: usage needs no runtime");
            assert!(!named || is_named(&page), "{name}: names that are known stay");
            assert_eq!(agent.get("/readyz").status, 200, "{name}");
            match seen {
                Seen::Nothing => assert!(is_up(&page) && !told(), "{name}"),
                Seen::Useless => assert!(told(), "{name}"),
                Seen::Down => assert!(
                    told() && (!is_up(&page) || matches!(self.fault, Fault::Vanishing | Fault::Calls(..))),
                    "{name}"
                ),
            }
        }
    }

    fn run(&mut self) {
        self.begin();
        let mut flags = self.node.flags();
        flags.extend(["--max-age-secs", "0", "--sync-interval-secs", "0.5"].map(Into::into));
        let agent = start(flags);
        let ill = usize::from(self.seen != Seen::Nothing);
        let mut before = self.scrape(&agent);
        for round in 0..2 {
            let name = self.name;
            self.check(&agent, round == 1);
            assert_eq!(
                logged(&agent, &["container runtime does not answer"]),
                (round + 1) * ill,
                "{name}: {:#?}",
                agent.log()
            );
            self.heal();
            // What is new is learnt as what is old.
            let more = Pod::new("shop", if round == 0 { "db" } else { "cache" });
            self.node.run(&more, 50 + u32::try_from(round).expect("small"), &[&more.container("main")]);
            agent.wait_until(&format!("{name}: names are learnt"), PATIENCE, || {
                let page = self.scrape(&agent);
                is_named(&page)
                    && !page
                        .matching("container_memory_usage_bytes", &[("pod", more.pod_name()), ("container", "main")])
                        .is_empty()
            });
            agent.wait_until(&format!("{name}: it is up"), PATIENCE, || {
                self.scrape(&agent).value("kata_pulse_cri_up", &[]) == 1.0
                    && !agent.get("/readyz?verbose").text().contains("[-] runtime: ")
            });
            let page = self.scrape(&agent);
            assert_none(&backward(&before, &page), name);
            before = page;
            if round == 0 {
                self.begin();
            }
        }
        agent.stop(0);
    }
}

fn is_named(page: &Page) -> bool {
    let app = [("container", "app"), ("pod", "web"), ("namespace", "shop")];
    page.lookup("container_memory_usage_bytes", &app).is_some()
}

#[test]
fn every_fault_of_the_runtime() {
    let cells: Vec<_> = table().into_iter().map(|row| std::thread::spawn(move || Cell::new(row).run())).collect();
    let names = table().into_iter().map(|(name, ..)| name);
    let failed: Vec<&str> = names.zip(cells).filter_map(|(name, cell)| cell.join().is_err().then_some(name)).collect();
    assert_eq!(failed, [""; 0]);
}
