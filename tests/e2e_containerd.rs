//! The agent on a real node: containerd, runc, CNI and the kernel's own counters, nothing simulated.
//!
//! One scenario in the order of a node's life, because its parts share a node that takes a while to fill.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kata_pulse_realnode::{APP_IMAGE, Container, ContainerSpec, Node, PodSpec};
use serde_json::Value;
use support::agent::Agent;
use support::cadvisor::{ids, scrape};
use support::exposition::{Page, Sample};
use support::truth::{Resident, values_are_the_kernels};

/// For what the kernel and containerd do in their own time.
const PATIENCE: Duration = Duration::from_secs(30);

const OOM_KILLS: &str = "kata_pulse_container_oom_kills_total";

/// Runs until the test makes this file in it, then asks for all the memory there is.
const GLUTTON: &str = "until [ -e /tmp/go ]; do sleep 0.1; done; exec tail /dev/zero";

/// Like [`GLUTTON`], but it is a child that asks and dies, and the container lives on.
const GLUTTONS_PARENT: &str = "until [ -e /tmp/go ]; do sleep 0.1; done; tail /dev/zero; exec sleep 1000";

#[test]
fn a_containerd_node_is_told_as_it_is() -> Result<()> {
    let node = Node::start()?;
    let mut residents = fill(&node)?;
    let socket = node.socket().display().to_string();
    let agent = Agent::start(["--runtime-endpoint", &socket, "--max-age-secs", "0"]);

    wait_for_work(&residents)?;
    rows_are_those_of_the_node(&agent, &node, &residents);
    for _ in 0..3 {
        values_are_the_kernels(&agent, &residents)?;
    }
    work_is_seen(&agent, &residents);
    pages_keep_to_their_subject(&agent, &residents);
    sandboxes_are_listed(&agent, &residents);
    processes_are_their_containers(&node, &residents)?;

    kills_are_counted_over_restarts(&agent, &node)?;
    a_kill_in_a_container_that_lives_on_counts_once(&agent, &node)?;

    let removed = residents.iter().position(|resident| resident.pod.name() == "client").context("the client")?;
    a_removed_pod_is_gone_at_once(&agent, residents.remove(removed))?;
    residents.push(a_new_pod_is_there_at_once(&agent, &node)?);
    a_restart_between_scrapes_is_seen(&agent, residents.last_mut().context("the new pod")?)?;
    rows_are_those_of_the_node(&agent, &node, &residents);

    residents.push(containerd_may_die_and_come_back(&agent, &node, &residents)?);
    rows_are_those_of_the_node(&agent, &node, &residents);
    values_are_the_kernels(&agent, &residents)?;
    containers_seen_in_the_making_are_right_when_made(&agent, &node)?;

    agent.stop(0);
    node.finish()
}

/// Pods of every kind that a node has.
fn fill(node: &Node) -> Result<Vec<Resident<'_>>> {
    let web = node.run_pod(PodSpec::new("shop", "web").burstable().memory_limit(256 << 20))?;
    let app = web.run(ContainerSpec::new("app", ["sleep", "1000"]).cpu_shares(102).memory_limit(64 << 20))?;
    // Leaves block I/O and page cache behind it, active and inactive.
    let filler =
        "dd if=/dev/zero of=/tmp/file bs=1M count=4 conv=fsync && cat /tmp/file /tmp/file >/tmp/copy; exec sleep 1000";
    let sidecar = web.run(ContainerSpec::new("sidecar", ["sh", "-c", filler]))?;

    let busy = node.run_pod(PodSpec::new("batch", "busy").cpu_quota(50_000, 100_000))?;
    let spin = busy.run(ContainerSpec::new("spin", ["sh", "-c", "while :; do :; done"]).cpu_quota(5_000, 100_000))?;

    let server = node.run_pod(PodSpec::new("shop", "server").burstable())?;
    let httpd = server.run(ContainerSpec::new("httpd", ["httpd", "-f", "-p", "8080", "-h", "/bin"]))?;
    let client = node.run_pod(PodSpec::new("shop", "client").best_effort())?;
    let fetch = format!("while :; do wget -q -O /dev/null http://{}:8080/busybox; sleep 0.2; done", server.address()?);
    let wget = client.run(ContainerSpec::new("wget", ["sh", "-c", &fetch]))?;

    let done = node.run_pod(PodSpec::new("batch", "done").best_effort())?;
    let job = done.run(ContainerSpec::new("job", ["true"]))?;
    job.wait_exit(PATIENCE)?;

    let over = node.run_pod(PodSpec::new("batch", "over").burstable())?;
    let task = over.run(ContainerSpec::new("task", ["true"]))?;
    task.wait_exit(PATIENCE)?;
    over.stop()?;

    let staged = node.run_pod(PodSpec::new("shop", "staged").best_effort())?;
    let init = staged.run(ContainerSpec::new("init", ["true"]))?;
    init.wait_exit(PATIENCE)?;
    let main = staged.run(ContainerSpec::new("main", ["sleep", "1000"]))?;

    let bare = node.run_pod(PodSpec::new("shop", "bare").best_effort())?;

    let proxy = node.run_pod(PodSpec::new("kube-system", "proxy").burstable().host_network())?;
    let rules = proxy.run(ContainerSpec::new("rules", ["sleep", "1000"]))?;

    Ok(vec![
        Resident::new(web).with(app).with(sidecar),
        Resident::new(busy).with(spin),
        Resident::new(server).with(httpd).restless(),
        Resident::new(client).with(wget).restless(),
        Resident::new(done).with_exited(job),
        Resident::new(over).with_exited(task).stopped(),
        Resident::new(staged).with_exited(init).with(main),
        Resident::new(bare),
        Resident::new(proxy).with(rules),
    ])
}

/// Waits until the busy pods have left marks, so that no check below is content with zeros.
fn wait_for_work(residents: &[Resident<'_>]) -> Result<()> {
    let throttled = find(residents, "busy").running[0].cgroup();
    let pause = find(residents, "client").pod.pause_pid();
    let cache = find(residents, "web").running[1].cgroup();
    wait_until("there is work to measure", || {
        let traffic = fs::read_to_string(format!("/proc/{pause}/net/dev")).unwrap_or_default();
        let received = traffic.lines().find_map(|line| line.trim().strip_prefix("eth0:"));
        let received = received.and_then(|columns| columns.split_whitespace().next()?.parse::<u64>().ok());
        throttled.key("cpu", "cpu.stat", "nr_throttled").is_ok_and(|periods| periods > 5)
            && received.is_some_and(|bytes| bytes > 4_000_000)
            && cache.key("memory", "memory.stat", "total_cache").is_ok_and(|bytes| bytes > 4_000_000)
            && cache.read("pids", "cgroup.procs").is_ok_and(|processes| processes.lines().count() == 1)
    })
}

/// The rows under the node's cgroup are exactly those of its pods, each named right, and the network is where it is
/// to be.
#[track_caller]
fn rows_are_those_of_the_node(agent: &Agent, node: &Node, residents: &[Resident<'_>]) {
    let page = scrape(agent);
    let root = node.cgroup_root();
    let groups = ["kubepods", "kubepods/burstable", "kubepods/besteffort"].map(|group| format!("{root}/{group}"));
    let expected: BTreeSet<String> = residents.iter().flat_map(Resident::ids).chain(groups.iter().cloned()).collect();
    for family in ["container_memory_usage_bytes", "container_cpu_usage_seconds_total", "container_last_seen"] {
        assert_eq!(ids(&page, family, &root), expected, "rows of {family}");
    }
    for group in &groups {
        let blank = [("container", ""), ("id", group), ("image", ""), ("name", ""), ("namespace", ""), ("pod", "")];
        page.value("container_memory_usage_bytes", &blank);
    }
    let networked: BTreeSet<String> = residents
        .iter()
        .filter(|resident| !resident.pod.uses_host_network() && !resident.stopped)
        .map(|resident| resident.pod.sandbox_cgroup().path().to_owned())
        .collect();
    assert_eq!(ids(&page, "container_network_receive_bytes_total", &root), networked, "rows with a network");
    let node_network = page.matching("container_network_receive_bytes_total", &[("id", "/")]);
    assert!(!node_network.is_empty(), "the node's own network is not on the / row");
    for resident in residents {
        for exited in &resident.exited {
            let traces = page
                .samples()
                .find(|sample| sample.name.starts_with("container_") && sample.has(&[("name", exited.id())]));
            assert!(traces.is_none(), "{} has exited: {traces:?}", exited.name());
        }
        let labels = [("sandbox_id", resident.pod.id()), ("pod", resident.pod.name()), ("runtime", "runc")];
        let labels = [&labels[..], &[("namespace", resident.pod.namespace()), ("uid", resident.pod.uid())]].concat();
        let info = page.lookup("kata_pulse_sandbox_info", &labels);
        assert_eq!(info, (!resident.stopped).then_some(1.0), "kata_pulse_sandbox_info of {}", resident.pod.name());
    }
}

/// The values that matter are not all zeros.
fn work_is_seen(agent: &Agent, residents: &[Resident<'_>]) {
    let page = scrape(agent);
    let spin = [("container", "spin"), ("pod", "busy")];
    assert!(page.value("container_cpu_usage_seconds_total", &spin) > 0.01);
    assert!(page.value("container_cpu_cfs_throttled_periods_total", &spin) > 5.0);
    assert!(page.value("container_cpu_cfs_throttled_seconds_total", &spin) > 0.1);
    assert_eq!(page.value("container_spec_cpu_quota", &spin), 5_000.0);
    let client = find(residents, "client").pod.id();
    let network = [("name", client), ("interface", "eth0"), ("container", ""), ("pod", "client")];
    assert!(page.value("container_network_receive_bytes_total", &network) > 4e6);
    assert!(page.value("container_memory_cache", &[("container", "sidecar"), ("pod", "web")]) > 4e6);
    let app = [("container", "app"), ("pod", "web"), ("image", APP_IMAGE)];
    assert_eq!(page.value("container_spec_memory_limit_bytes", &app), f64::from(64 << 20));
    assert_eq!(page.value("kata_pulse_cri_up", &[]), 1.0);
}

/// `?sandbox=` and `/metrics/cadvisor` answer with what they are asked for and nothing else.
fn pages_keep_to_their_subject(agent: &Agent, residents: &[Resident<'_>]) {
    for resident in residents.iter().filter(|resident| !resident.stopped) {
        let (id, name) = (resident.pod.id(), resident.pod.name());
        for asked in [id, &id[..12]] {
            let page = agent.page(&format!("/metrics?sandbox={asked}"));
            let foreign = page.samples().find(|sample| {
                sample.label("pod") != Some(name) || sample.label("namespace") != Some(resident.pod.namespace())
            });
            assert!(foreign.is_none(), "asked for {name} alone: {foreign:?}");
            let served = ids(&page, "container_memory_usage_bytes", "");
            assert_eq!(served, resident.ids().into_iter().collect(), "rows of {name} alone");
        }
    }
    let unknown = "0123456789abcdef".repeat(4);
    for (asked, status) in
        [(unknown.as_str(), 404), (&unknown[..12], 404), (&unknown[..11], 400), ("..%2Fetc", 400), ("", 400)]
    {
        assert_eq!(agent.get(&format!("/metrics?sandbox={asked}")).status, status, "sandbox={asked}");
    }
    let page = agent.page("/metrics/cadvisor");
    for family in page.families.iter().map(|family| family.name.as_str()) {
        let kubelets = family.starts_with("container_") || family.starts_with("machine_");
        assert!(kubelets || family == "cadvisor_version_info", "{family} on /metrics/cadvisor");
    }
    let web = [("container", "app"), ("pod", "web")];
    assert!(page.value("container_memory_working_set_bytes", &web) > 0.0);
    assert_eq!(page.value("machine_memory_bytes", &[]), machine_memory());
}

/// `/sandboxes` knows every pod with its containers, those that have exited too.
fn sandboxes_are_listed(agent: &Agent, residents: &[Resident<'_>]) {
    let answer = agent.get("/sandboxes");
    assert_eq!(answer.status, 200);
    let list: Value = serde_json::from_str(answer.text()).expect("JSON");
    let list = list.as_array().expect("an array");
    assert_eq!(list.len(), residents.len());
    for Resident { pod, running, exited, stopped, .. } in residents {
        let entry = list.iter().find(|entry| entry["sandbox_id"] == pod.id()).expect("the pod is listed");
        for (key, value) in [
            ("pod_name", pod.name()),
            ("namespace", pod.namespace()),
            ("uid", pod.uid()),
            ("runtime", "runc"),
            ("state", if *stopped { "notready" } else { "ready" }),
        ] {
            assert_eq!(entry[key], value, "{key} of {}", pod.name());
        }
        let told: BTreeSet<(&str, &str, &str)> = entry["containers"]
            .as_array()
            .expect("an array of containers")
            .iter()
            .map(|container| ["id", "name", "state"].map(|key| container[key].as_str().unwrap_or_default()).into())
            .collect();
        let running = running.iter().map(|container| (container.id(), container.name(), "running"));
        let exited = exited.iter().map(|container| (container.id(), container.name(), "exited"));
        assert_eq!(told, running.chain(exited).collect(), "containers of {}", pod.name());
    }
}

/// The process that spins is busy, and it is its container's; so is every pause container its pod's.
fn processes_are_their_containers(node: &Node, residents: &[Resident<'_>]) -> Result<()> {
    let socket = node.socket().display().to_string();
    let flags = ["--enable-collectors", "top", "--metrics-profile", "all", "--max-age-secs", "0"];
    let agent = Agent::start([&["--runtime-endpoint", &socket], &flags[..]].concat());
    let busy = find(residents, "busy");
    let procs = busy.running[0].cgroup().read("pids", "cgroup.procs")?;
    let spin: u64 = procs.trim().parse().context("one process spins")?;
    let labels = [("comm", "sh"), ("container", "spin"), ("namespace", "batch"), ("pod", "busy")];
    let family = "kata_pulse_top_process_cpu_seconds_total";
    let spun = || agent.page("/metrics").lookup(family, &labels);
    // The host may be busy with other things, and only the busiest are told of.
    let mut first = None;
    wait_until("it is seen to spin", || {
        let seconds = spun();
        first = first.or(seconds);
        first.zip(seconds).is_some_and(|(first, seconds)| seconds > first + 0.1)
    })?;

    let answer: Value = serde_json::from_str(agent.get("/processes?top=100").text()).context("JSON")?;
    let listed = answer["by_cpu"].as_array().context("an array")?;
    let entry = listed.iter().find(|entry| entry["pid"] == spin).context("the one that spins")?;
    for (key, value) in [("comm", "sh"), ("namespace", "batch"), ("pod", "busy"), ("container", "spin")] {
        assert_eq!(entry[key], value, "{key} of {entry}");
    }
    assert_eq!((&entry["sandbox_id"], &entry["runtime"]), (&busy.pod.id().into(), &"runc".into()));
    // Its quota is a twentieth of a core.
    let cores = entry["cpu_cores"].as_f64().context("a number")?;
    assert!((0.01..0.15).contains(&cores), "{entry}");

    let one = agent.page(&format!("/metrics?sandbox={}", busy.pod.id()));
    let told: BTreeSet<&str> = one.matching(family, &[]).iter().filter_map(|sample| sample.label("comm")).collect();
    assert!(told.contains("sh"), "{told:?}");
    assert!(one.matching(family, &[]).iter().all(|sample| sample.has(&[("pod", "busy")])), "others' processes");
    agent.stop(0);
    Ok(())
}

/// Each kill counts once, whatever becomes of the container that it hit.
fn kills_are_counted_over_restarts(agent: &Agent, node: &Node) -> Result<()> {
    let pod = node.run_pod(PodSpec::new("shop", "glutton").burstable())?;
    let spec = ContainerSpec::new("eater", ["sh", "-c", GLUTTON]).memory_limit(32 << 20);
    let first = pod.run(spec.clone())?;
    assert!(kills(&scrape(agent), "glutton").is_none_or(|kills| kills == 0.0), "kills before there was one");

    overeat(&first)?;
    wait_for_kills(agent, "glutton", 1.0);
    let row = [("name", first.id())];
    assert!(scrape(agent).matching("container_memory_usage_bytes", &row).is_empty(), "the killed one has a row");

    let second = pod.run(spec.clone().attempt(1))?;
    for _ in 0..3 {
        let page = scrape(agent);
        assert_eq!(kills(&page, "glutton"), Some(1.0), "after the restart");
        let labels = [("container", "eater"), ("pod", "glutton"), ("name", second.id()), ("image", APP_IMAGE)];
        page.value("container_memory_usage_bytes", &labels);
    }
    overeat(&second)?;
    wait_for_kills(agent, "glutton", 2.0);

    // The kubelet removes all but the last of the dead.
    first.remove()?;
    let _third = pod.run(spec.attempt(2))?;
    for _ in 0..3 {
        assert_eq!(kills(&scrape(agent), "glutton"), Some(2.0), "after the first was removed");
    }
    pod.remove()
}

/// The cgroup tells of the kill first, the runtime's exit reason a second time when the container ends.
fn a_kill_in_a_container_that_lives_on_counts_once(agent: &Agent, node: &Node) -> Result<()> {
    let pod = node.run_pod(PodSpec::new("shop", "parent").burstable())?;
    let parent = pod.run(ContainerSpec::new("parent", ["sh", "-c", GLUTTONS_PARENT]).memory_limit(32 << 20))?;
    fs::write(parent.root().join("tmp/go"), "")?;
    wait_until("the child is killed", || {
        parent.cgroup().key("memory", "memory.oom_control", "oom_kill").is_ok_and(|kills| kills == 1)
    })?;
    assert_eq!(kills(&scrape(agent), "parent"), Some(1.0), "while the container lives");
    parent.stop()?;
    let exit = parent.wait_exit(PATIENCE)?;
    for _ in 0..3 {
        assert_eq!(kills(&scrape(agent), "parent"), Some(1.0), "after the container ended: {exit:?}");
    }
    pod.remove()
}

fn a_removed_pod_is_gone_at_once(agent: &Agent, resident: Resident<'_>) -> Result<()> {
    let (name, id) = (resident.pod.name().to_owned(), resident.pod.id().to_owned());
    let files = [resident.pod.uid().to_owned(), format!("/proc/{}/", resident.pod.pause_pid())];
    resident.pod.remove()?;
    let page = scrape(agent);
    let trace = page.samples().find(|sample| sample.label("pod") == Some(&name) || names(sample, &id));
    assert!(trace.is_none(), "{name} is removed: {trace:?}");
    assert!(!agent.get("/sandboxes").text().contains(&id), "{name} is removed but listed");
    assert_eq!(agent.get(&format!("/metrics?sandbox={id}")).status, 404);
    // An open file of a removed cgroup or network namespace keeps the kernel from freeing it.
    agent.wait_until("the removed pod's files are closed", PATIENCE, || {
        !agent.open_files().iter().any(|open| files.iter().any(|file| open.contains(file)))
    });
    Ok(())
}

fn a_new_pod_is_there_at_once<'node>(agent: &Agent, node: &'node Node) -> Result<Resident<'node>> {
    let pod = node.run_pod(PodSpec::new("shop", "late").burstable())?;
    let app = pod.run(ContainerSpec::new("app", ["sleep", "1000"]))?;
    let late = Resident::new(pod).with(app);
    values_are_the_kernels(agent, std::slice::from_ref(&late))?;
    Ok(late)
}

/// One cgroup went and one came, so there are as many as before.
fn a_restart_between_scrapes_is_seen(agent: &Agent, resident: &mut Resident<'_>) -> Result<()> {
    let stopped = resident.running.remove(0);
    stopped.stop()?;
    let again = ContainerSpec::new(stopped.name(), ["sleep", "1000"]).attempt(stopped.attempt() + 1);
    resident.running.push(resident.pod.run(again)?);
    resident.exited.push(stopped);
    values_are_the_kernels(agent, std::slice::from_ref(resident))
}

/// The runtime makes a cgroup first, controller by controller, and then writes its limits. What a scrape in between
/// finds missing or unlimited must not be believed once the container runs.
fn containers_seen_in_the_making_are_right_when_made(agent: &Agent, node: &Node) -> Result<()> {
    let mut crowd = Resident::new(node.run_pod(PodSpec::new("shop", "crowd").burstable())?);
    let made = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !made.load(Ordering::Relaxed) {
                agent.get("/metrics");
            }
        });
        let started = ["one", "two", "three", "four", "five"].iter().try_for_each(|name| {
            let spec = ContainerSpec::new(name, ["sleep", "1000"]).cpu_shares(77).cpu_quota(5_000, 100_000);
            crowd.running.push(crowd.pod.run(spec.memory_limit(32 << 20))?);
            anyhow::Ok(())
        });
        made.store(true, Ordering::Relaxed);
        started
    })?;
    values_are_the_kernels(agent, std::slice::from_ref(&crowd))?;
    crowd.pod.remove()
}

/// Without containerd the agent goes on with what it knows; with it back it learns again, by itself.
fn containerd_may_die_and_come_back<'node>(
    agent: &Agent,
    node: &'node Node,
    residents: &[Resident<'_>],
) -> Result<Resident<'node>> {
    node.kill_containerd()?;
    agent.wait_until("kata_pulse_cri_up is 0", PATIENCE, || {
        values_are_the_kernels(agent, residents).expect("cgroups live on without containerd");
        scrape(agent).value("kata_pulse_cri_up", &[]) == 0.0
    });
    rows_are_those_of_the_node(agent, node, residents);
    sandboxes_are_listed(agent, residents);
    assert_eq!(agent.get("/readyz").status, 200, "readiness without containerd");

    node.start_containerd_again()?;
    let pod = node.run_pod(PodSpec::new("shop", "reborn").burstable())?;
    let app = pod.run(ContainerSpec::new("app", ["sleep", "1000"]))?;
    let labels = [("container", "app"), ("pod", "reborn"), ("name", app.id()), ("image", APP_IMAGE)];
    agent.wait_until("a pod of the new containerd has its names", PATIENCE, || {
        scrape(agent).lookup("container_memory_usage_bytes", &labels).is_some()
    });
    assert_eq!(scrape(agent).value("kata_pulse_cri_up", &[]), 1.0);
    Ok(Resident::new(pod).with(app))
}

/// The machine's memory in bytes.
fn machine_memory() -> f64 {
    let text = fs::read_to_string("/proc/meminfo").expect("meminfo");
    let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.strip_suffix("kB"));
    kib.and_then(|kib| kib.trim().parse::<f64>().ok()).expect("MemTotal") * 1024.0
}

fn names(sample: &Sample, id: &str) -> bool {
    sample.labels.values().any(|value| value.contains(id))
}

#[track_caller]
fn kills(page: &Page, pod: &str) -> Option<f64> {
    let samples = page.matching(OOM_KILLS, &[("pod", pod)]);
    for sample in &samples {
        let labels: Vec<&str> = sample.labels.keys().map(String::as_str).collect();
        assert_eq!(labels, ["container", "namespace", "pod"], "{sample:?}");
    }
    page.lookup(OOM_KILLS, &[("pod", pod), ("namespace", "shop")])
}

/// Waits for the count, which on its way must not be above it.
#[track_caller]
fn wait_for_kills(agent: &Agent, pod: &str, expected: f64) {
    agent.wait_until(&format!("{expected} kills in {pod}"), PATIENCE, || {
        let kills = kills(&scrape(agent), pod).unwrap_or_default();
        assert!(kills <= expected, "{kills} kills in {pod} after {expected}");
        kills == expected
    });
}

/// Lets a container with [`GLUTTON`] run into its limit.
fn overeat(container: &Container<'_>) -> Result<()> {
    fs::write(container.root().join("tmp/go"), "").context("write into the container")?;
    let exit = container.wait_exit(PATIENCE)?;
    ensure!(exit.reason == "OOMKilled", "{exit:?}");
    Ok(())
}

fn find<'a, 'node>(residents: &'a [Resident<'node>], name: &str) -> &'a Resident<'node> {
    residents.iter().find(|resident| resident.pod.name() == name).expect("the pod is among the residents")
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        ensure!(Instant::now() < deadline, "not after {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
