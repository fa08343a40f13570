use std::fs;
use std::path::Path;

use super::*;
use crate::model::identity::{LabelBlock, Labels, PodUid, SandboxId};
use crate::model::inventory::{Kind, Network, Runtime, Sandbox, SandboxState, Subject};

const WEB: &str = "a3f0000000000000000000000000000000000000000000000000000000000001";

const VM: &str = "b7e0000000000000000000000000000000000000000000000000000000000002";

/// A made-up node, 1000 seconds after boot.
struct Node {
    root: tempfile::TempDir,
    tops: Tops,
    inventory: Arc<Inventory>,
}

impl Node {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let (proc, cgroup) = (root.path().join("proc"), root.path().join("cgroup"));
        fs::create_dir_all(&proc).unwrap();
        fs::create_dir_all(&cgroup).unwrap();
        fs::write(cgroup.join("cgroup.controllers"), "").unwrap();
        fs::write(proc.join("uptime"), "1000.00 1900.00\n").unwrap();
        fs::write(proc.join("stat"), "cpu  0\nbtime 1700000000\n").unwrap();
        let roots = Roots { host: root.path().into(), proc, sys: "/nowhere".into(), cgroup };
        Self { root, tops: Tops::new(Arc::new(roots), true), inventory: inventory() }
    }

    fn proc(&self, pid: u32) -> std::path::PathBuf {
        self.root.path().join("proc").join(pid.to_string())
    }

    /// A process started `age` seconds ago, with so many ticks and pages.
    fn process(&self, pid: u32, comm: &str, age: u64, ticks: u64, pages: u64, cgroup: &str) {
        let start = (1000 - age) * 100;
        fs::create_dir_all(self.proc(pid)).unwrap();
        let stat = format!("{pid} ({comm}) S 1 1 1 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 3 0 {start} 9 {pages} 0\n");
        fs::write(self.proc(pid).join("stat"), stat).unwrap();
        fs::write(self.proc(pid).join("cgroup"), format!("0::{cgroup}\n")).unwrap();
    }

    fn end(&self, pid: u32) {
        fs::remove_dir_all(self.proc(pid)).unwrap();
    }

    fn look(&mut self) -> Top {
        let mut draft = Draft {
            inventory: Arc::clone(&self.inventory),
            rows: Vec::new(),
            machine: None,
            node: None,
            volumes: None,
            top: None,
        };
        self.tops.collect(&mut draft).unwrap();
        *draft.top.unwrap()
    }

    /// As if the last look had been that long ago.
    fn wait(&mut self, time: Duration) {
        self.tops.noted = self.tops.noted.map(|noted| noted.checked_sub(time).unwrap());
    }
}

/// A runc pod with a container, and a Kata pod.
fn inventory() -> Arc<Inventory> {
    let sandbox = |id: &str, name: &str, runtime| {
        Arc::new(Sandbox {
            id: SandboxId::from(id),
            pod_name: name.to_owned(),
            namespace: "shop".to_owned(),
            uid: PodUid::from("u"),
            runtime,
            runtime_handler: String::new(),
            kata: None,
            state: SandboxState::Ready,
            created_at: None,
            host_network: false,
            containers: Vec::new(),
        })
    };
    let subject = |kind, cgroup: &str, sandbox: &str, container: &str| {
        let labels = Labels { container: container.to_owned(), id: cgroup.to_owned(), ..Labels::default() };
        Arc::new(Subject {
            kind,
            block: LabelBlock::render(&labels),
            labels,
            cgroup: Some(cgroup.into()),
            in_guest: false,
            sandbox: Some(sandbox.into()),
            container: None,
            spec: None,
            started_at: None,
            created_at: None,
            network: Network::None,
        })
    };
    Arc::new(Inventory {
        generation: 1,
        subjects: vec![
            subject(Kind::Pod, "/kubepods/podw", WEB, ""),
            subject(Kind::Container, "/kubepods/podw/app", WEB, "app"),
            subject(Kind::Pod, "/kubepods/podv", VM, ""),
        ],
        sandboxes: vec![sandbox(WEB, "web", Runtime::Runc), sandbox(VM, "vm", Runtime::Kata)],
        runtime: None,
    })
}

fn pids(list: &[Arc<Process>]) -> Vec<u32> {
    list.iter().map(|process| process.pid).collect()
}

fn whose(top: &Top, pid: u32) -> String {
    let process = top.by_memory.iter().find(|process| process.pid == pid).unwrap();
    let Owner { namespace, pod, container, .. } = &*process.owner;
    format!("{namespace}/{pod}/{container}")
}

fn cpu_of(top: &Top, comm: &str) -> Option<f64> {
    top.groups.iter().find(|group| &*group.comm == comm).map(|group| group.cpu.as_f64())
}

#[test]
fn processes_are_ordered_by_memory_and_by_what_they_use_now() {
    let mut node = Node::new();
    // Long ago it was busy: 500 s of CPU time in 900 s.
    node.process(10, "old", 900, 50_000, 300, "/");
    node.process(11, "large", 900, 100, 9000, "/");
    node.process(12, "kworker/0:1", 900, 10, 0, "/");
    let first = node.look();
    assert_eq!((first.processes, pids(&first.by_memory)), (3, vec![11, 10, 12]));
    assert_eq!(pids(&first.by_cpu), [10, 11, 12], "over their lives");
    assert_eq!(first.by_cpu[0].cores, Cores { used: 500.0 / 900.0, over: 900.0 });
    let large = &first.by_memory[0];
    let page = procfs::page_size();
    assert_eq!((large.resident, large.threads, large.state), (Bytes(9000 * page), 3, 'S'));
    // 1700000000 + 100 s after boot
    assert_eq!(large.started_at.map(Seconds::whole), Some(1_700_000_100));

    node.wait(Duration::from_secs(10));
    node.process(11, "large", 900, 900, 9000, "/");
    node.process(13, "new", 2, 100, 10, "/");
    let second = node.look();
    assert_eq!(pids(&second.by_cpu), [11, 13, 10, 12]);
    let busy = second.by_cpu[0].cores;
    // 800 ticks in 10 s
    assert!((busy.used - 0.8).abs() < 0.05 && (busy.over - 10.0).abs() < 0.5, "{busy:?}");
    // It came since: 100 ticks in the 2 s that it is there.
    assert_eq!(second.by_cpu[1].cores, Cores { used: 0.5, over: 2.0 });
    assert_eq!(second.by_cpu[2].cores.used, 0.0);

    // At once, within which it was given no tick.
    node.tops.noted = Some(std::time::Instant::now());
    let third = node.look();
    assert_eq!((pids(&third.by_cpu)[0], third.by_cpu[0].cores), (11, busy));
}

#[test]
fn a_pid_that_is_used_again_is_another_process() {
    let mut node = Node::new();
    node.process(10, "first", 900, 5000, 300, "/kubepods/podw/app");
    assert_eq!(whose(&node.look(), 10), "shop/web/app");
    node.wait(Duration::from_secs(10));
    node.process(10, "second", 5, 100, 300, "/");
    let top = node.look();
    assert_eq!((&*top.by_memory[0].comm, whose(&top, 10).as_str()), ("second", "//"));
    assert_eq!(top.by_cpu[0].cores, Cores { used: 0.2, over: 5.0 });
    assert_eq!(top.processes, 1);
}

#[test]
fn whose_a_process_is_its_cgroup_says_or_its_command_line() {
    let mut node = Node::new();
    node.process(10, "nginx", 900, 0, 900, "/kubepods/podw/app");
    node.process(11, "deep", 900, 0, 800, "/kubepods/podw/app/inner/most");
    node.process(12, "pause", 900, 0, 700, "/kubepods/podw/pause");
    node.process(13, "qemu-system-x86", 900, 0, 600, &format!("/kubepods/podv/kata_{VM}"));
    node.process(14, "virtiofsd", 900, 0, 500, &format!("/kata_overhead/{VM}"));
    node.process(15, "containerd-shim", 900, 0, 400, "/system.slice/containerd.service");
    fs::write(node.proc(15).join("cmdline"), format!("/usr/bin/containerd-shim-kata-v2\0-id\0{VM}\0")).unwrap();
    node.process(16, "containerd-shim", 900, 0, 300, "/system.slice/containerd.service");
    fs::write(node.proc(16).join("cmdline"), format!("/usr/bin/containerd-shim-runc-v2\0-id\0{WEB}\0")).unwrap();
    node.process(17, "sshd", 900, 0, 200, "/system.slice/sshd.service");
    // Anybody can say what he likes on his command line.
    fs::write(node.proc(17).join("cmdline"), format!("sshd\0{WEB}\0")).unwrap();
    let top = node.look();
    let all: Vec<String> = (10..18).map(|pid| whose(&top, pid)).collect();
    assert_eq!(
        all,
        ["shop/web/app", "shop/web/app", "shop/web/", "shop/vm/", "shop/vm/", "shop/vm/", "shop/web/", "//"]
    );
    let shim = top.by_memory.iter().find(|process| process.pid == 15).unwrap();
    assert_eq!(
        (shim.owner.runtime, shim.owner.sandbox.as_ref().map(|id| id.as_str())),
        (Some(Runtime::Kata), Some(VM))
    );
}

#[test]
fn an_owner_is_found_when_its_pod_becomes_known_and_when_it_moves() {
    let mut node = Node::new();
    let known = std::mem::take(&mut node.inventory);
    node.process(10, "nginx", 0, 0, 900, "/kubepods/podw/app");
    node.process(11, "old", 500, 0, 900, "/kubepods/podw/app");
    assert_eq!(whose(&node.look(), 10), "//");
    node.inventory = known;
    let top = node.look();
    assert_eq!((whose(&top, 10), whose(&top, 11)), ("shop/web/app".into(), "shop/web/app".into()));
    node.process(10, "nginx", 0, 0, 900, "/kubepods/podv");
    node.process(11, "old", 500, 0, 900, "/kubepods/podv");
    let top = node.look();
    assert_eq!((whose(&top, 10), whose(&top, 11)), ("shop/vm/".into(), "shop/web/app".into()), "by their ages");
    let good_for = |tops: &Tops, pid: u32| tops.known[&pid].placed.unwrap().good_for;
    assert_eq!((good_for(&node.tops, 10), good_for(&node.tops, 11)), (Duration::ZERO, PLACED_FOR));
    node.process(12, "young", 7, 0, 900, "/kubepods/podv");
    node.look();
    assert_eq!(good_for(&node.tops, 12), Duration::from_secs(7));
    let placed = node.tops.known.get_mut(&11).unwrap().placed.as_mut().unwrap();
    placed.at = placed.at.checked_sub(PLACED_FOR).unwrap();
    assert_eq!(whose(&node.look(), 11), "shop/vm/");
}

#[test]
fn a_group_keeps_what_its_processes_have_used() {
    let mut node = Node::new();
    node.process(10, "worker", 900, 100, 1000, "/kubepods/podw/app");
    node.process(11, "worker", 900, 200, 1000, "/kubepods/podw/app");
    let top = node.look();
    let page = procfs::page_size();
    assert_eq!(top.groups.len(), 1);
    assert_eq!((cpu_of(&top, "worker"), top.groups[0].resident), (Some(3.0), Bytes(2000 * page)));
    node.end(10);
    node.process(11, "worker", 900, 250, 1000, "/kubepods/podw/app");
    assert_eq!(cpu_of(&node.look(), "worker"), Some(3.5), "what has ended is still in it");
    // It becomes another program: what it has used stays where it was.
    node.process(11, "other-name", 900, 300, 1000, "/kubepods/podw/app");
    node.process(12, "worker", 1, 5, 10, "/kubepods/podw/app");
    let top = node.look();
    assert_eq!((cpu_of(&top, "worker"), cpu_of(&top, "other-name")), (Some(3.55), Some(0.5)));
    node.end(12);
    assert_eq!(cpu_of(&node.look(), "worker"), None);
    node.process(13, "worker", 1, 7, 10, "/kubepods/podw/app");
    assert_eq!(cpu_of(&node.look(), "worker"), Some(0.07), "a group that comes back counts anew");
}

#[test]
fn names_are_bounded_and_cannot_move_a_cursor() {
    let mut node = Node::new();
    for turn in 0..100 {
        // The busiest of the node, under another name each time.
        node.process(10, &format!("evil-{turn}"), 900, 1000 * (turn + 1), 1000, "/kubepods/podw/app");
        node.wait(Duration::from_secs(1));
        let top = node.look();
        let names: Vec<&str> = top.groups.iter().map(|group| &*group.comm).collect();
        let expected = if turn < groups::NAMES as u64 { format!("evil-{turn}") } else { "other".to_owned() };
        assert_eq!(names, [expected.as_str()]);
    }
    node.process(10, "a\x1b[2Jb", 900, 0, 1000, "/kubepods/podw/app");
    let top = node.look();
    assert_eq!(&*top.by_memory[0].comm, "a\u{fffd}[2Jb");
    node.tops.forget(&Inventory::default());
    assert_eq!(&*node.look().groups[0].comm, "a\u{fffd}[2Jb", "a new pod has names of its own");
}

#[test]
fn lists_and_groups_have_an_end() {
    let mut node = Node::new();
    for pid in 1..=u32::try_from(LISTED).unwrap() + 50 {
        // Memory grows with the pid, CPU time falls with it.
        let (pages, ticks) = (u64::from(pid), 10_000 - u64::from(pid));
        node.process(pid, &format!("p{pid}"), 900, ticks, pages, "/");
    }
    let top = node.look();
    assert_eq!(top.processes, 150);
    assert_eq!(pids(&top.by_memory), (51..=150).rev().collect::<Vec<_>>());
    assert_eq!(pids(&top.by_cpu), (1..=100).collect::<Vec<_>>());
    let mut expected: Vec<String> = (1..=10).chain(141..=150).map(|pid| format!("p{pid}")).collect();
    expected.sort();
    assert_eq!(top.groups.iter().map(|group| &*group.comm).collect::<Vec<_>>(), expected);
}

#[test]
fn a_group_on_the_edge_keeps_its_series() {
    let mut node = Node::new();
    let told = |top: &Top, comm: &str| top.groups.iter().any(|group| &*group.comm == comm);
    // CPU time orders them the other way round.
    for pid in 1..=30 {
        node.process(pid, &format!("p{pid}"), 900, u64::from(pid), 1000 - u64::from(pid), "/");
    }
    let top = node.look();
    assert!(told(&top, "p10") && !told(&top, "p11"));
    // It falls behind eleven to nineteen, then behind all.
    node.process(10, "p10", 900, 10, 980, "/");
    assert!(told(&node.look(), "p10"));
    node.process(10, "p10", 900, 10, 1, "/");
    assert!(!told(&node.look(), "p10"));
    node.process(10, "p10", 900, 10, 980, "/");
    assert!(!told(&node.look(), "p10"), "it has to be among the first again");
}

#[test]
fn two_sandboxes_of_one_pod_are_one_group() {
    let mut node = Node::new();
    let mut inventory = (*inventory()).clone();
    let mut twin = (*inventory.sandboxes[1]).clone();
    twin.pod_name = "web".to_owned();
    inventory.sandboxes[1] = Arc::new(twin);
    node.inventory = Arc::new(inventory);
    node.process(10, "pause", 900, 100, 10, "/kubepods/podw");
    node.process(11, "pause", 900, 200, 10, "/kubepods/podv");
    let top = node.look();
    assert_eq!((top.groups.len(), cpu_of(&top, "pause")), (1, Some(3.0)));
}

#[test]
fn a_procfs_that_cannot_be_read_is_an_error() {
    let node = Node::new();
    let tops = |proc: &Path| {
        let roots = Roots { proc: proc.into(), ..(*node.tops.roots).clone() };
        let mut draft =
            Draft { inventory: Arc::default(), rows: Vec::new(), machine: None, node: None, volumes: None, top: None };
        Tops::new(Arc::new(roots), false).collect(&mut draft).unwrap_err().to_string()
    };
    let empty = tempfile::tempdir().unwrap();
    assert!(tops(empty.path()).ends_with("uptime: No such file or directory (os error 2)"));
    fs::write(empty.path().join("uptime"), "soon\n").unwrap();
    assert!(tops(empty.path()).ends_with("uptime: malformed"));
}
