//! The shim's management server, of both runtimes.

use std::collections::BTreeSet;
use std::io::{Read, Write};

use kata_pulse_simulator::kata::truth::Component;
use kata_pulse_simulator::kata::{Endpoint, Hypervisor, KataNode, Lie, Runtime};
use kata_pulse_simulator::recorded::{Capture, RecordedNode};

use crate::client::{connect, get, parse, request, samples};

fn float(value: u64) -> f64 {
    value.to_string().parse().expect("a number")
}

#[test]
fn a_go_shim_sends_chunks_of_its_own_dialect() -> anyhow::Result<()> {
    let node = KataNode::builder().sandbox(Runtime::Go, Hypervisor::CloudHypervisor).start()?;
    let sandbox = node.sandbox(0);
    sandbox.advance(5);
    let reply = get(&sandbox.path(Endpoint::Shim), "/metrics")?;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("transfer-encoding"), Some("chunked"));
    assert_eq!(reply.header("content-length"), None);
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
    let text = reply.text();
    let metrics = samples(text);
    let truth = sandbox.truth();
    let shim = truth.process(Component::Shim);
    assert_eq!(metrics["kata_shim_proc_status{item=\"vmrss\"}"], float(shim.rss()), "bytes");
    assert_eq!(metrics["kata_shim_io_stat{item=\"readbytes\"}"], float(shim.io.read_bytes));
    let vmm = truth.process(Component::Hypervisor);
    assert_eq!(metrics["kata_hypervisor_proc_stat{item=\"utime\"}"], float(vmm.ticks().0));
    let rss = format!("kata_hypervisor_proc_status{{item=\"vmrss\"}} {:e}", float(vmm.rss()));
    let (mantissa, exponent) = rss.rsplit_once('e').expect("an exponent");
    assert!(text.contains(&format!("{mantissa}e+{exponent:0>2}\n")), "shortest digits with an exponent");
    let tap = &truth.host.network[2];
    let series = "kata_hypervisor_netdev{interface=\"tap0_kata\",item=\"recv_bytes\"}";
    assert_eq!(metrics[series], float(tap.received.bytes));
    assert_eq!(tap.received.bytes, truth.guest.interface("eth0").sent.bytes, "seen from the other end");
    let count = metrics["kata_shim_rpc_durations_histogram_milliseconds_count{action=\"stats\"}"];
    assert_eq!(metrics["kata_shim_rpc_durations_histogram_milliseconds_bucket{action=\"stats\",le=\"+Inf\"}"], count);
    assert!(metrics["kata_shim_pod_overhead_cpu"] < 0.0);

    // Its own families are sorted, the agent's are not, and never twice the same way.
    let families = |text: &str| -> Vec<String> {
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types.filter_map(|rest| rest.split(' ').next()).map(str::to_owned).collect()
    };
    let (own, agent): (Vec<_>, Vec<_>) = families(text)
        .into_iter()
        .partition(|name| !name.starts_with("kata_agent_") && !name.starts_with("kata_guest_"));
    assert!(own.is_sorted() && !agent.is_sorted());
    let again = get(&sandbox.path(Endpoint::Shim), "/metrics")?;
    assert_ne!(families(again.text()), families(text));
    assert_eq!(families(again.text()).into_iter().collect::<BTreeSet<_>>(), families(text).into_iter().collect());
    Ok(())
}

/// Chunks end where the buffer was full, which may be inside of a number.
#[test]
fn chunks_split_samples() -> anyhow::Result<()> {
    let node = KataNode::builder().sandbox(Runtime::Go, Hypervisor::Qemu).without_host_files().start()?;
    let mut stream = connect(&node.sandbox(0).path(Endpoint::Shim))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut raw = String::new();
    stream.read_to_string(&mut raw)?;
    let borders: Vec<_> = raw.match_indices("\r\n800\r\n").map(|(at, _)| at).collect();
    assert!(borders.len() > 10);
    assert!(borders.iter().any(|at| !raw[..*at].ends_with('\n')));
    Ok(())
}

#[test]
fn a_rust_shim_sends_the_shape_of_the_recorded_one() -> anyhow::Result<()> {
    let recorded = RecordedNode::unpack()?;
    let pods = recorded.pods()?;
    let pod = pods.iter().find(|pod| pod.handler == "kata-clh").expect("a Kata pod was recorded");
    let raw = std::fs::read(recorded.capture(Capture::T0).join("kata").join(&pod.sandbox).join("metrics.http"))?;
    let real = parse(&raw).expect("an answer was recorded");
    let builder = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::CloudHypervisor);
    let node = builder.with(|plan| plan.vcpus(1).disks(0)).start()?;
    let sandbox = node.sandbox(0);
    let ours = get(&sandbox.path(Endpoint::Shim), "/metrics")?;

    let names = |head: &str| {
        head.lines().skip(1).filter_map(|line| line.split(':').next().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(names(&ours.head), names(&real.head));
    assert_eq!(ours.head.lines().next(), real.head.lines().next());
    let lines = |text: &str| {
        text.lines().map(|line| line.rsplit_once(' ').unwrap_or_default().0.to_owned()).collect::<Vec<_>>()
    };
    // Comments end in words and stay apart from each other by what comes before.
    assert_eq!(lines(ours.text()), lines(real.text()), "the same lines in the same order");
    let shim = sandbox.truth().process(Component::Shim).clone();
    assert_eq!(samples(ours.text())["kata_shim_proc_status{item=\"vmrss\"}"], float(shim.rss() / 1024), "KiB");
    Ok(())
}

#[test]
fn dragonball_counts_for_itself() -> anyhow::Result<()> {
    let node = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::Dragonball).start()?;
    let sandbox = node.sandbox(0);
    let metrics = samples(get(&sandbox.path(Endpoint::Shim), "/metrics")?.text());
    assert_eq!(metrics["kata_hypervisor_scrape_count"], 1.0);
    assert!(metrics["kata_hypervisor_vcpu{cpu_id=\"1\",item=\"exit_io_in\"}"] > 0.0);
    let truth = sandbox.truth();
    assert!(truth.process(Component::Shim).rss_shmem > 0, "the shim holds the guest's memory");
    Ok(())
}

#[test]
fn agent_urls_and_unknown_paths_are_answered() -> anyhow::Result<()> {
    let node = KataNode::builder()
        .sandbox(Runtime::Go, Hypervisor::CloudHypervisor)
        .sandbox(Runtime::Rust, Hypervisor::Qemu)
        .without_host_files()
        .start()?;
    let (go, rust) = (node.sandbox(0), node.sandbox(1));
    let url = |sandbox: &kata_pulse_simulator::kata::KataSandbox| get(&sandbox.path(Endpoint::Shim), "/agent-url");
    assert_eq!(url(&go)?.text(), format!("hvsock:///run/vc/vm/{}/clh.sock:1024", go.id()));
    let vsock = url(&rust)?;
    let cid = vsock.text().strip_prefix("vsock://").and_then(|rest| rest.strip_suffix(":1024"));
    assert!(cid.is_some_and(|cid| cid.parse::<u32>().is_ok_and(|cid| cid >= 3)), "{}", vsock.text());
    assert_eq!(vsock.header("content-type"), None);
    assert!(!rust.has(Endpoint::Agent));
    let missing = get(&rust.path(Endpoint::Shim), "/nothing")?;
    assert_eq!((missing.status, missing.text()), (404, "URL NOT FOUND"));
    assert_eq!(get(&go.path(Endpoint::Shim), "/nothing")?.status, 404);
    assert_eq!(node.violations(), []);
    Ok(())
}

#[test]
fn a_shim_that_scrapes_kill_dies_with_everything_it_had() -> anyhow::Result<()> {
    for hypervisor in [Hypervisor::Qemu, Hypervisor::Firecracker] {
        let node = KataNode::builder().sandbox(Runtime::Rust, hypervisor).containers(1).start()?;
        let sandbox = node.sandbox(0);
        let shim = sandbox.truth().process(Component::Shim).pid;
        let vmm = sandbox.truth().process(Component::Hypervisor).pid;
        // Harmless, before.
        get(&sandbox.path(Endpoint::Shim), "/agent-url")?;
        assert!(sandbox.directory().is_dir());

        let mut stream = connect(&sandbox.path(Endpoint::Shim))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let mut nothing = Vec::new();
        stream.read_to_end(&mut nothing)?;
        assert_eq!(nothing, b"");
        assert_eq!(sandbox.death().as_deref(), Some("GET /metrics"));
        assert!(!sandbox.directory().exists());
        assert!(connect(&sandbox.path(Endpoint::Task)).is_err());
        assert!(!node.host_root().join(format!("proc/{shim}")).exists());
        assert!(node.host_root().join(format!("proc/{vmm}")).exists(), "the hypervisor is an orphan");
        let listed = node.registry().pod(sandbox.id()).expect("it is listed");
        assert_eq!(listed.listed.state(), k8s_cri::v1::PodSandboxState::SandboxNotready);
        assert_eq!(node.take_violations().len(), 1);
        // Time goes on for what is left.
        sandbox.end_process(Component::Hypervisor);
        node.advance(1);
        assert!(!node.host_root().join(format!("proc/{vmm}")).exists());
    }
    Ok(())
}

#[test]
fn what_changes_a_sandbox_is_recorded() -> anyhow::Result<()> {
    let node = KataNode::builder().sandbox(Runtime::Go, Hypervisor::CloudHypervisor).without_host_files().start()?;
    let path = node.sandbox(0).path(Endpoint::Shim);
    for (method, target) in
        [("PUT", "/policy"), ("GET", "/iptables"), ("POST", "/metrics"), ("GET", "/direct-volume/stats?path=x")]
    {
        request(&path, method, target)?;
    }
    let calls: Vec<_> = node.take_violations().into_iter().map(|violation| violation.call).collect();
    assert_eq!(calls, ["PUT /policy", "GET /iptables", "POST /metrics", "GET /direct-volume/stats"]);
    Ok(())
}

/// What the agent cannot fit into a message, a body holds.
#[test]
fn a_lying_guest_floods_its_shim() -> anyhow::Result<()> {
    let node = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::CloudHypervisor).without_host_files().start()?;
    let sandbox = node.sandbox(0);
    sandbox.lie(Some(Lie::ManyFamilies(200_000)));
    let reply = get(&sandbox.path(Endpoint::Shim), "/metrics")?;
    assert!(reply.body.len() > 4 << 20);
    assert!(reply.text().ends_with("kata_guest_f199999 199999\n"));
    Ok(())
}

#[test]
fn an_agent_that_is_not_heard_has_no_section() -> anyhow::Result<()> {
    let node = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::CloudHypervisor).without_host_files().start()?;
    let sandbox = node.sandbox(0);
    sandbox.set_agent_heard(false);
    let reply = get(&sandbox.path(Endpoint::Shim), "/metrics")?;
    assert_eq!(reply.status, 200);
    assert!(reply.text().contains("kata_shim_threads") && !reply.text().contains("kata_agent_scrape_count"));
    let url = get(&sandbox.path(Endpoint::Shim), "/agent-url")?;
    assert_eq!((url.status, url.text()), (200, ""));
    sandbox.set_agent_heard(true);
    assert!(get(&sandbox.path(Endpoint::Shim), "/metrics")?.text().contains("kata_agent_scrape_count"));
    Ok(())
}
