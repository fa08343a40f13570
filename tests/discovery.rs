//! Discovery over HTTP, on a made-up node with the simulated container runtime: changes are found, faults of the
//! runtime cost names and nothing else, and no more is asked than is new.

use std::time::{Duration, Instant};

use kata_pulse_simulator::cri::{Container, CriServer, Exit, Fault, Method, Node, Pod};
use tonic::Code;

mod support;

use support::agent::Agent;
use support::host::Host;

/// Long enough for anything that is not stuck, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Longer than a test: whatever is found within it was not found by the periodic sync.
const NEVER: &str = "3600";

/// A node whose cgroups and whose runtime say the same.
struct World {
    host: Host,
    node: Node,
    server: CriServer,
}

impl World {
    fn new() -> Self {
        let host = Host::v2();
        let node = Node::new();
        let server = CriServer::start(host.path("cri.sock"), &node).expect("the socket is ours");
        Self { host, node, server }
    }

    fn agent(&self, sync_interval: &str) -> Agent {
        let mut flags = self.host.flags_but_runtime();
        flags.extend(
            ["--max-age-secs", "0", "--sync-interval-secs", sync_interval, "--runtime-endpoint"].map(Into::into),
        );
        flags.push(self.server.path().into());
        Agent::start(flags)
    }

    /// Adds a pod to the runtime and its cgroups to the node, the cgroups last as a container's start does.
    fn run(&self, name: &str, containers: &[&str]) -> (Pod, Vec<Container>) {
        let pod = Pod::new("shop", name);
        let containers: Vec<Container> = containers.iter().map(|name| pod.container(name)).collect();
        self.node.add_pod(&pod);
        for container in &containers {
            self.node.add_container(container);
        }
        self.make_cgroups(&pod, &containers);
        (pod, containers)
    }

    fn make_cgroups(&self, pod: &Pod, containers: &[Container]) {
        self.host.v2_cgroup(&pod.cgroup());
        for id in containers.iter().map(Container::id).chain([pod.id()]) {
            self.host.v2_cgroup(&format!("{}/{id}", pod.cgroup()));
        }
    }
}

fn names(agent: &Agent) -> Vec<String> {
    let page = agent.page("/metrics");
    let mut names: Vec<String> = page
        .family("container_cpu_usage_seconds_total")
        .into_iter()
        .flat_map(|family| &family.samples)
        .filter(|sample| !sample.labels["container"].is_empty())
        .map(|sample| format!("{}/{}", sample.labels["pod"], sample.labels["container"]))
        .collect();
    names.sort();
    names
}

fn cri_up(agent: &Agent) -> f64 {
    agent.page("/metrics").value("kata_pulse_cri_up", &[])
}

#[test]
fn a_scrape_finds_what_came_and_went_since_the_last_one() {
    let world = World::new();
    let (web, _) = world.run("web", &["app", "proxy"]);
    let agent = world.agent(NEVER);
    assert_eq!(names(&agent), ["web/app", "web/proxy"]);
    world.run("db", &["postgres"]);
    assert_eq!(names(&agent), ["db/postgres", "web/app", "web/proxy"], "the very next scrape has it");
    world.node.remove_pod(web.id());
    std::fs::remove_dir_all(world.host.path(&format!("sys/fs/cgroup{}", web.cgroup()))).unwrap();
    assert_eq!(names(&agent), ["db/postgres"], "the very next scrape has it no more");
    assert!(!agent.get("/sandboxes").text().contains("\"web\""));
    assert_eq!(agent.get(&format!("/metrics?sandbox={}", web.id())).status, 404);
}

#[test]
fn container_events_are_followed_where_the_runtime_has_them() {
    let world = World::new();
    world.node.set_event_stream(true);
    let agent = world.agent(NEVER);
    assert!(world.server.wait_for_calls(Method::GetContainerEvents, 1, PATIENCE));
    // Without a cgroup nothing but the event can tell of it.
    let pod = Pod::new("shop", "web");
    world.node.add_pod(&pod);
    world.node.add_container(&pod.container("app"));
    agent.wait_until("the pod is listed", PATIENCE, || agent.get("/sandboxes").text().contains(pod.id()));
}

/// Each hint made discovery sync, and each sync made it more patient, so that a busy start was followed by a long wait.
#[test]
fn a_pod_that_starts_amid_many_hints_is_there_soon_after_the_runtime_lists_it() {
    let world = World::new();
    world.node.set_event_stream(false);
    let agent = world.agent(NEVER);
    let pod = Pod::new("shop", "web");
    let app = pod.container("app");
    world.make_cgroups(&pod, std::slice::from_ref(&app));
    assert!(names(&agent).is_empty(), "it is held back until it has a name");
    for number in 0..8 {
        let asked = world.server.calls(Method::ListContainers);
        world.host.write(&format!("run/kata/something-{number}/file"), "");
        assert!(world.server.wait_for_calls(Method::ListContainers, asked + 1, PATIENCE));
    }
    world.node.add_pod(&pod);
    world.node.add_container(&app);
    agent.wait_until("the pod has its name", Duration::from_secs(4), || names(&agent) == ["web/app"]);
}

#[test]
fn a_status_is_asked_once_and_again_when_the_state_changes() {
    let world = World::new();
    let (_, containers) = world.run("web", &["app", "proxy"]);
    let agent = world.agent("0.5");
    assert!(world.server.wait_for_calls(Method::ListContainers, 5, PATIENCE));
    assert_eq!(world.server.calls(Method::PodSandboxStatus), 1);
    assert_eq!(world.server.calls(Method::ContainerStatus), 2);
    assert_eq!(world.server.calls(Method::Version), 1);
    world.node.exit_container(containers[0].id(), &Exit::oom_killed());
    assert!(world.server.wait_for_calls(Method::ContainerStatus, 3, PATIENCE));
    assert!(world.server.wait_for_calls(
        Method::ListContainers,
        world.server.calls(Method::ListContainers) + 2,
        PATIENCE
    ));
    assert_eq!(world.server.calls(Method::ContainerStatus), 3);
    // The made-up cgroup says one kill as well: both witnesses mean the same one.
    let oom = [("container", "app"), ("namespace", "shop"), ("pod", "web")];
    assert_eq!(agent.page("/metrics").value("kata_pulse_container_oom_kills_total", &oom), 1.0);
}

#[test]
fn a_runtime_restart_loses_nothing_and_needs_none_of_ours() {
    let mut world = World::new();
    world.run("web", &["app"]);
    let agent = world.agent("0.5");
    assert_eq!(names(&agent), ["web/app"]);
    world.server.crash();
    agent.wait_until("the runtime is known to be down", PATIENCE, || cri_up(&agent) == 0.0);
    assert_eq!(names(&agent), ["web/app"], "names stay");
    assert_eq!(agent.get("/readyz").status, 200);
    assert!(agent.get("/readyz?verbose").text().contains("[-] runtime: "));
    world.server.restart().unwrap();
    world.run("db", &["postgres"]);
    agent.wait_until("new names are learnt", PATIENCE, || names(&agent) == ["db/postgres", "web/app"]);
    assert_eq!(cri_up(&agent), 1.0);
    let log = agent.log();
    let said = |what: &str| log.iter().filter(|line| line.contains(what)).count();
    assert_eq!(said("container runtime does not answer"), 1, "{log:#?}");
    assert_eq!(said("container runtime answers"), 2, "{log:#?}");
}

#[test]
fn a_runtime_that_hangs_costs_names_and_no_time() {
    let world = World::new();
    world.run("web", &["app"]);
    let agent = world.agent("0.5");
    assert_eq!(names(&agent), ["web/app"]);
    world.server.fail(Method::ListPodSandbox, Fault::Hang);
    agent.wait_until("the runtime is known to be down", PATIENCE, || cri_up(&agent) == 0.0);
    let started = Instant::now();
    for _ in 0..10 {
        assert_eq!(names(&agent), ["web/app"]);
    }
    assert!(started.elapsed() < Duration::from_secs(5), "ten scrapes took {:?}", started.elapsed());
    world.server.heal(Method::ListPodSandbox);
    world.run("db", &["postgres"]);
    agent.wait_until("new names are learnt", PATIENCE, || names(&agent) == ["db/postgres", "web/app"]);
}

#[test]
fn an_agent_started_beside_a_hung_runtime_is_ready_and_serves() {
    let world = World::new();
    world.run("web", &["app"]);
    world.server.fail(Method::Version, Fault::Hang);
    let agent = world.agent("0.5");
    let page = agent.page("/metrics");
    assert!(page.value("container_cpu_usage_seconds_total", &[("id", "/")]) > 0.0);
    world.server.heal(Method::Version);
    agent.wait_until("names are learnt", PATIENCE, || names(&agent) == ["web/app"]);
}

#[test]
fn faults_of_single_calls_cost_what_they_would_have_told() {
    let world = World::new();
    let (_, containers) = world.run("web", &["app"]);
    world.server.fail(Method::ContainerStatus, Fault::Status(Code::Internal, "try later".into()));
    world.server.fail(Method::PodSandboxStatus, Fault::Close);
    world.server.fail(Method::ListContainerStats, Fault::Status(Code::Unknown, "task gone".into()));
    let agent = world.agent("0.5");
    let row = [("container", "app"), ("name", containers[0].id())];
    let image = |agent: &Agent| {
        agent
            .page("/metrics")
            .matching("container_memory_rss", &row)
            .first()
            .map(|sample| sample.labels["image"].clone())
    };
    agent.wait_until("the row has its name", PATIENCE, || image(&agent).is_some());
    let digest = image(&agent).unwrap();
    world.server.heal(Method::ContainerStatus);
    world.server.heal(Method::PodSandboxStatus);
    agent.wait_until("the image has the name the pod asked for", PATIENCE, || {
        image(&agent).is_some_and(|image| image != digest && !image.starts_with("sha256:"))
    });
    agent.wait_until("the pause image is known", PATIENCE, || {
        let pause = [("container", ""), ("pod", "web"), ("image", "registry.k8s.io/pause:3.9")];
        !agent.page("/metrics").matching("container_memory_rss", &pause).is_empty()
    });
}

#[test]
fn a_cgroup_the_runtime_does_not_list_yet_waits_for_its_name() {
    let world = World::new();
    let agent = world.agent("0.5");
    let pod = Pod::new("shop", "web");
    let app = pod.container("app");
    world.make_cgroups(&pod, std::slice::from_ref(&app));
    let nameless = |agent: &Agent| agent.get("/metrics").text().contains(app.id());
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(1) {
        assert!(!nameless(&agent), "a series without a name would become another one");
    }
    world.node.add_pod(&pod);
    world.node.add_container(&app);
    agent.wait_until("the row has its name", PATIENCE, || names(&agent) == ["web/app"]);
}
