//! What goes wrong at a door goes wrong as it says, and is well again when healed.

use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use kata_pulse_simulator::kata::{Endpoint, Fault, Hypervisor, KataNode, KataSandbox, Runtime, VmState};
use prost::Message;

use crate::client::{PATIENCE, Response, Rpc, Stats, Text, connect, get, read_some, samples, shake_hands};

/// Longer than any answer takes, shorter than a patience.
const MOMENT: Duration = Duration::from_millis(200);

const METRICS: &str = "grpc.AgentService/GetMetrics";
const STATS: &str = "grpc.AgentService/StatsContainer";
const TASK_STATS: &str = "containerd.task.v2.Task/Stats";

fn node() -> anyhow::Result<(KataNode, KataSandbox)> {
    let builder = KataNode::builder().sandbox(Runtime::Go, Hypervisor::CloudHypervisor);
    let node = builder.containers(1).without_host_files().start()?;
    let sandbox = node.sandbox(0);
    Ok((node, sandbox))
}

/// The doors that speak HTTP, with a path each.
const HTTP: [(Endpoint, &str); 2] = [(Endpoint::Shim, "/metrics"), (Endpoint::Hypervisor, "/api/v1/vm.counters")];

/// The doors that speak ttrpc, with a call each.
const RPC: [(Endpoint, &str); 2] = [(Endpoint::Agent, METRICS), (Endpoint::Task, TASK_STATS)];

fn rpc(sandbox: &KataSandbox, endpoint: Endpoint) -> std::io::Result<Rpc> {
    let path = sandbox.path(endpoint);
    if endpoint == Endpoint::Agent { Rpc::to_agent(&path) } else { Rpc::connect(&path) }
}

fn id(sandbox: &KataSandbox) -> Vec<u8> {
    crate::client::Id { id: sandbox.id().to_owned() }.encode_to_vec()
}

/// Sends a GET and gives what comes within a moment.
fn ask_briefly(path: &Path, target: &str) -> std::io::Result<(std::os::unix::net::UnixStream, Vec<u8>)> {
    let mut stream = connect(path)?;
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())?;
    stream.set_read_timeout(Some(MOMENT))?;
    let mut bytes = vec![0; 1 << 16];
    let count = stream.read(&mut bytes).unwrap_or_default();
    bytes.truncate(count);
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok((stream, bytes))
}

#[test]
fn what_hangs_is_answered_when_it_is_healed() -> anyhow::Result<()> {
    let (_node, sandbox) = node()?;
    for (endpoint, path) in HTTP {
        sandbox.fail(endpoint, Fault::Hang);
        let (mut stream, nothing) = ask_briefly(&sandbox.path(endpoint), path)?;
        assert_eq!(nothing, b"");
        assert_eq!(sandbox.counts(endpoint).in_flight, 1);
        sandbox.heal(endpoint);
        let mut byte = [0];
        assert_eq!(read_some(&mut stream, &mut byte)?, 1);
    }
    for (endpoint, route) in RPC {
        let mut rpc = rpc(&sandbox, endpoint)?;
        sandbox.fail(endpoint, Fault::Hang);
        let call = rpc.send(route, &id(&sandbox))?;
        assert!(sandbox.wait_for_requests(endpoint, route, 1, PATIENCE));
        sandbox.heal(endpoint);
        assert_eq!(rpc.receive()?.0, call);
    }
    // A handshake hangs like a request.
    sandbox.fail(Endpoint::Agent, Fault::Hang);
    let mut stream = connect(&sandbox.path(Endpoint::Agent))?;
    stream.write_all(b"CONNECT 1024\n")?;
    stream.set_read_timeout(Some(MOMENT))?;
    assert!(stream.read(&mut [0]).is_err());
    stream.set_read_timeout(Some(PATIENCE))?;
    sandbox.heal_all();
    assert!(shake_hands(&mut stream, "")?.starts_with("OK "));
    Ok(())
}

/// A client that gives up leaves nothing in flight.
#[test]
fn who_leaves_is_not_waited_for() -> anyhow::Result<()> {
    let (_node, sandbox) = node()?;
    sandbox.fail_all(&Fault::Hang);
    drop(ask_briefly(&sandbox.path(Endpoint::Shim), "/metrics")?);
    let mut task = Rpc::connect(&sandbox.path(Endpoint::Task))?;
    task.send(TASK_STATS, &id(&sandbox))?;
    assert!(sandbox.wait_for_requests(Endpoint::Task, TASK_STATS, 1, PATIENCE));
    drop(task);
    let begun = Instant::now();
    while sandbox.all_counts().open > 0 || sandbox.all_counts().in_flight > 0 {
        assert!(begun.elapsed() < PATIENCE, "{:?}", sandbox.all_counts());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

#[test]
fn delays_and_drips_are_slow_and_complete() -> anyhow::Result<()> {
    let (_node, sandbox) = node()?;
    for (endpoint, path) in HTTP {
        sandbox.fail(endpoint, Fault::Delay(MOMENT));
        let begun = Instant::now();
        assert_eq!(get(&sandbox.path(endpoint), path)?.status, 200);
        assert!(begun.elapsed() >= MOMENT);
        sandbox.heal(endpoint);
    }
    let mut agent = Rpc::to_agent(&sandbox.path(Endpoint::Agent))?;
    sandbox.fail(Endpoint::Agent, Fault::Delay(MOMENT));
    let begun = Instant::now();
    agent.ask::<Text>(METRICS, "")?;
    assert!(begun.elapsed() >= MOMENT);

    // A byte at a time until it is healed, and then the rest.
    sandbox.fail(Endpoint::Agent, Fault::Drip(Duration::from_secs(1)));
    let call = agent.send(STATS, &id(&sandbox))?;
    let mut buffer = [0; 64];
    assert_eq!(read_some(&mut agent.stream, &mut buffer[..1])?, 1);
    agent.stream.set_read_timeout(Some(MOMENT))?;
    assert!(agent.stream.read(&mut buffer).is_err(), "the next byte takes a second");
    agent.stream.set_read_timeout(Some(PATIENCE))?;
    sandbox.heal(Endpoint::Agent);
    // The first byte of the length was zero.
    let mut header = [0; 9];
    agent.stream.read_exact(&mut header)?;
    assert_eq!(header[3..7], call.to_be_bytes());
    Ok(())
}

#[test]
fn answers_are_cut_short_or_not_given() -> anyhow::Result<()> {
    let (_node, sandbox) = node()?;
    for (endpoint, path) in HTTP {
        let whole = get(&sandbox.path(endpoint), path)?;
        sandbox.fail(endpoint, Fault::CutShort);
        let (mut stream, mut bytes) = ask_briefly(&sandbox.path(endpoint), path)?;
        while let Ok(count @ 1..) = read_some(&mut stream, &mut [0; 4096]) {
            bytes.resize(bytes.len() + count, 0);
        }
        assert!(!bytes.is_empty() && bytes.len() < whole.head.len() + whole.body.len(), "{endpoint:?}");
        sandbox.fail(endpoint, Fault::Close);
        let (_, nothing) = ask_briefly(&sandbox.path(endpoint), path)?;
        assert_eq!(nothing, b"");
    }
    for (endpoint, route) in RPC {
        let mut one = rpc(&sandbox, endpoint)?;
        sandbox.fail(endpoint, Fault::CutShort);
        one.send(route, &id(&sandbox))?;
        let (length, _) = one.receive_header()?;
        let mut rest = Vec::new();
        one.stream.read_to_end(&mut rest)?;
        assert!(rest.len() < usize::try_from(length)?);
        sandbox.heal(endpoint);

        let mut two = rpc(&sandbox, endpoint)?;
        sandbox.fail(endpoint, Fault::Close);
        two.send(route, &id(&sandbox))?;
        assert_eq!(read_some(&mut two.stream, &mut [0])?, 0);
        sandbox.heal(endpoint);
    }
    Ok(())
}

#[test]
fn floods_and_oversize_answers_announce_themselves() -> anyhow::Result<()> {
    let (_node, sandbox) = node()?;
    sandbox.fail_all(&Fault::Flood);
    for (endpoint, path) in HTTP {
        let (mut stream, head) = ask_briefly(&sandbox.path(endpoint), path)?;
        assert!(String::from_utf8_lossy(&head).contains("content-length: 1073741824\r\n"));
        // It really comes, for as long as somebody reads.
        let mut buffer = vec![0; 1 << 20];
        stream.read_exact(&mut buffer)?;
    }
    for (endpoint, route) in RPC {
        let mut rpc = rpc(&sandbox, endpoint)?;
        rpc.send(route, &id(&sandbox))?;
        assert_eq!(rpc.receive_header()?.0, 1 << 30);
        rpc.stream.read_exact(&mut vec![0; 1 << 20])?;
    }
    sandbox.fail_all(&Fault::Oversize);
    for (endpoint, route) in RPC {
        let mut rpc = rpc(&sandbox, endpoint)?;
        rpc.send(route, &id(&sandbox))?;
        let (_, message) = rpc.receive()?;
        assert_eq!(message.len(), (4 << 20) + 1);
        // The connection is of use still.
        sandbox.heal(endpoint);
        assert!(rpc.call(route, &id(&sandbox))?.is_ok());
    }
    let reply = get(&sandbox.path(Endpoint::Shim), "/metrics")?;
    assert!(reply.head.len() > 1 << 20);
    Ok(())
}

#[test]
fn text_that_is_no_utf_8_has_the_right_length() -> anyhow::Result<()> {
    let (_node, sandbox) = node()?;
    sandbox.fail_all(&Fault::InvalidUtf8);
    for (endpoint, path) in HTTP {
        let reply = get(&sandbox.path(endpoint), path)?;
        assert_eq!(reply.status, 200);
        assert!(std::str::from_utf8(&reply.body).is_err(), "{endpoint:?}");
    }
    let mut agent = Rpc::to_agent(&sandbox.path(Endpoint::Agent))?;
    for (route, payload) in [(METRICS, Vec::new()), (STATS, id(&sandbox)), ("grpc.Health/Version", Vec::new())] {
        let reply = agent.call(route, &payload)?.expect("the status is OK");
        let decoded = Text::decode(reply.as_slice()).is_ok() && Stats::decode(reply.as_slice()).is_ok();
        assert!(!decoded && reply.windows(2).any(|two| two == [0xff, 0xfe]), "{route}");
    }
    Ok(())
}

#[test]
fn garbage_is_neither_http_nor_protobuf() -> anyhow::Result<()> {
    let (_node, sandbox) = node()?;
    sandbox.fail_all(&Fault::Garbage);
    for (endpoint, path) in HTTP {
        let (_, bytes) = ask_briefly(&sandbox.path(endpoint), path)?;
        assert!(!bytes.is_empty() && !bytes.starts_with(b"HTTP"));
    }
    for (endpoint, route) in RPC {
        let mut rpc = rpc(&sandbox, endpoint)?;
        // The envelope is broken, then what is in it.
        rpc.send(route, &id(&sandbox))?;
        assert!(Response::decode(rpc.receive()?.1.as_slice()).is_err());
        rpc.send(route, &id(&sandbox))?;
        let response = Response::decode(rpc.receive()?.1.as_slice())?;
        assert!(Text::decode(response.payload.as_slice()).is_err());
    }
    Ok(())
}

#[test]
fn errors_are_the_protocol_s_own() -> anyhow::Result<()> {
    let (_node, sandbox) = node()?;
    sandbox.fail_all(&Fault::Fail);
    for (endpoint, path) in HTTP {
        assert_eq!(get(&sandbox.path(endpoint), path)?.status, 500);
    }
    for (endpoint, route) in RPC {
        let (code, _) = rpc(&sandbox, endpoint)?.call(route, &id(&sandbox))?.expect_err("an error");
        assert_eq!(code, 13);
    }
    Ok(())
}

#[test]
fn wrong_units_are_other_numbers() -> anyhow::Result<()> {
    let (_node, sandbox) = node()?;
    sandbox.fail_all(&Fault::WrongUnits);
    let mut agent = Rpc::to_agent(&sandbox.path(Endpoint::Agent))?;
    let metrics = samples(&agent.ask::<Text>(METRICS, "")?.text);
    let truth = sandbox.truth();
    let is = |series: &str, value: u64| assert_eq!(metrics[series].to_string(), value.to_string(), "{series}");
    is("kata_guest_meminfo{item=\"mem_total\"}", truth.guest.memory.total / 1024);
    is("kata_guest_cpu_time{cpu=\"total\",item=\"user\"}", truth.guest.cpu_total().user / 10);
    let stats = agent.ask::<Stats>(STATS, sandbox.id())?.cgroup;
    assert_eq!(stats.cpu.usage.total, truth.containers[0].cpu.total_ns() / 1000);
    let counters = get(&sandbox.path(Endpoint::Hypervisor), "/api/v1/vm.counters")?;
    assert!(counters.text().contains("\"rx_bytes\":\""));
    Ok(())
}

#[test]
fn a_handshake_is_denied_or_never_ends() -> anyhow::Result<()> {
    let (_node, sandbox) = node()?;
    sandbox.fail(Endpoint::Agent, Fault::DenyHandshake);
    let mut stream = connect(&sandbox.path(Endpoint::Agent))?;
    stream.write_all(b"CONNECT 1024\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    assert!(!answer.contains("OK") && answer.ends_with('\n'), "{answer:?}");
    sandbox.fail(Endpoint::Agent, Fault::EndlessHandshake);
    let mut stream = connect(&sandbox.path(Endpoint::Agent))?;
    stream.write_all(b"CONNECT 1024\n")?;
    let mut answer = vec![0; 1 << 20];
    stream.read_exact(&mut answer)?;
    assert!(answer.starts_with(b"OK") && !answer.contains(&b'\n'));
    Ok(())
}

#[test]
fn a_dead_owner_leaves_a_socket_that_refuses() -> anyhow::Result<()> {
    let (_node, sandbox) = node()?;
    for endpoint in [Endpoint::Shim, Endpoint::Agent, Endpoint::Task, Endpoint::Hypervisor] {
        let path = sandbox.path(endpoint);
        let mut open = connect(&path)?;
        sandbox.fail(endpoint, Fault::Refuse);
        assert_eq!(read_some(&mut open, &mut [0])?, 0, "open connections are closed");
        let begun = Instant::now();
        let error = loop {
            match connect(&path) {
                Err(error) => break error,
                Ok(_) => assert!(begun.elapsed() < PATIENCE),
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(path.exists());
        sandbox.heal(endpoint);
        let begun = Instant::now();
        while connect(&path).is_err() {
            assert!(begun.elapsed() < PATIENCE);
        }
    }
    Ok(())
}

#[test]
fn a_directory_comes_and_goes_and_stays() -> anyhow::Result<()> {
    let (_node, sandbox) = node()?;
    let directory = sandbox.directory();
    sandbox.flap(Duration::from_millis(20));
    let begun = Instant::now();
    let (mut seen, mut missed) = (0, 0);
    while seen < 3 || missed < 3 {
        assert!(begun.elapsed() < PATIENCE);
        if directory.exists() {
            seen += 1
        } else {
            missed += 1
        }
        std::thread::sleep(Duration::from_millis(13));
    }
    sandbox.settle();
    assert_eq!(get(&sandbox.path(Endpoint::Shim), "/metrics")?.status, 200);
    sandbox.vanish();
    assert!(!directory.exists() && connect(&sandbox.path(Endpoint::Task)).is_err());
    sandbox.appear();
    assert_eq!(get(&sandbox.path(Endpoint::Shim), "/metrics")?.status, 200);
    Ok(())
}

#[test]
fn faults_of_one_door_leave_the_others_alone() -> anyhow::Result<()> {
    let (_node, sandbox) = node()?;
    sandbox.fail(Endpoint::Agent, Fault::Hang);
    sandbox.set_vm_state(VmState::Paused);
    assert_eq!(get(&sandbox.path(Endpoint::Shim), "/agent-url")?.status, 200);
    assert!(Rpc::connect(&sandbox.path(Endpoint::Task))?.call(TASK_STATS, &id(&sandbox))?.is_ok());
    Ok(())
}
