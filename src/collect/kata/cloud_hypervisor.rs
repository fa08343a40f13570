//! Cloud Hypervisor's API socket: who it is, what its machine is doing, what its devices have moved.
//!
//! ```text
//! GET /api/v1/vmm.ping     {"build_version":"v51.1.0","version":"51.1.0","pid":135,"features":["io_uring","kvm"]}
//! GET /api/v1/vm.info      {"config":{…3 kB…},"state":"Running","memory_actual_size":268435456,"device_tree":{…}}
//! GET /api/v1/vm.counters  {"_net0":{"tx_frames":14,"rx_bytes":726,…},"_disk0":{"write_latency_min":1155,…}}
//! ```
//! One thread of the VMM serves all requests, so ask rarely. The order of keys changes from call to call. Before a
//! machine is made or booted the answer is 500 with a JSON array; with the VMM stopped there is none at all. Only
//! virtio-net and virtio-block count; a Kata machine with a virtio-fs root shows `_net0` alone, and `{}` is normal.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use tokio::time::Instant;

use crate::collect::kata::json::{If, Object};
use crate::model::guest::{Latency, VmState, Vmm, VmmDisk, VmmNetwork};
use crate::model::inventory::KataRuntime;
use crate::model::units::{Bytes, Seconds};
use crate::unix_http::{Bounds, Fault, HttpError, Session};

/// Longest time for one collection of facts.
pub const DEADLINE: Duration = Duration::from_secs(3);

/// Largest answer taken: a description of a machine with hundreds of devices is below.
const MAX_BODY_BYTES: usize = 1 << 20;

/// Devices kept, disks and networks together.
const MAX_DEVICES: usize = 256;

/// Longest device id kept, in bytes.
const MAX_ID_BYTES: usize = 255;

const PING: &str = "/api/v1/vmm.ping";
const INFO: &str = "/api/v1/vm.info";
const COUNTERS: &str = "/api/v1/vm.counters";

/// Why a VMM gave no facts.
#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    /// No answer, or one that is not 200.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The answer is not the JSON it should be.
    #[error("parse the answer to {route}")]
    Parse {
        /// What was asked for.
        route: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// Who answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ping {
    /// Its pid, in its own pid namespace.
    pub pid: Option<u32>,
    /// Its version: `51.1.0`.
    pub version: Option<String>,
}

/// What `vm.info` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// What the machine is doing.
    pub state: Option<VmState>,
    /// Size of its memory.
    pub memory: Option<Bytes>,
}

/// What `vm.counters` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Block devices by id.
    pub disks: Vec<VmmDisk>,
    /// Network devices by id.
    pub networks: Vec<VmmNetwork>,
}

/// One VMM, by its API socket. It is connected for as long as one collection asks it: it serves few clients at once.
#[derive(Clone, Debug)]
pub struct CloudHypervisor {
    socket: PathBuf,
}

impl CloudHypervisor {
    /// Nothing is connected yet.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Name of the socket: below `/run/vc/vm/<sandbox>/` with Go's runtime, below `/run/kata/<sandbox>/` with Rust's.
    pub const fn socket_name(runtime: KataRuntime) -> &'static str {
        match runtime {
            KataRuntime::Go => "clh-api.sock",
            KataRuntime::Rs => "ch-api.sock",
        }
    }

    /// Asks who answers: the cheapest way to the VMM's pid. Answered even while the guest boots.
    pub async fn ping(&self, deadline: Duration) -> Result<Ping, VmmError> {
        let body = ask(&mut Session::new(&self.socket), PING, Instant::now() + deadline.min(DEADLINE)).await?;
        parse_ping(&body).map_err(|source| VmmError::Parse { route: PING, source })
    }

    /// The machine and its devices' counters, within one deadline. A VMM without a running machine is no error: the
    /// state says so, and nothing else is told.
    pub async fn vmm(&self, deadline: Duration) -> Result<Vmm, VmmError> {
        let until = Instant::now() + deadline.min(DEADLINE);
        let mut session = Session::new(&self.socket);
        let info = match ask(&mut session, INFO, until).await {
            Ok(body) => parse_info(&body).map_err(|source| VmmError::Parse { route: INFO, source })?,
            Err(error) if is_not_running(&error) => {
                return Ok(Vmm { state: Some(VmState::NotRunning), ..Vmm::default() });
            }
            Err(error) => return Err(error.into()),
        };
        let counters = match ask(&mut session, COUNTERS, until).await {
            Ok(body) => parse_counters(&body).map_err(|source| VmmError::Parse { route: COUNTERS, source })?,
            // Made but not booted: the machine has a size and nothing to count.
            Err(error) if is_not_running(&error) => Counters::default(),
            Err(error) => return Err(error.into()),
        };
        let (Info { state, memory }, Counters { disks, networks }) = (info, counters);
        Ok(Vmm { state, memory, disks, networks })
    }
}

async fn ask(session: &mut Session<'_>, route: &'static str, until: Instant) -> Result<Vec<u8>, HttpError> {
    let deadline = until.saturating_duration_since(Instant::now());
    session.get_bytes(route, Bounds { deadline, body_bytes: MAX_BODY_BYTES }).await
}

/// `500 ["Error from API","The VM info is not available","VM is not running"]`
fn is_not_running(error: &HttpError) -> bool {
    match &error.fault {
        Fault::Status { status: 500, body } => serde_json::from_slice::<Vec<IgnoredAny>>(body).is_ok(),
        _ => false,
    }
}

/// Parses the answer to `vmm.ping`.
pub fn parse_ping(body: &[u8]) -> Result<Ping, serde_json::Error> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        pid: If<u64>,
        #[serde(default)]
        version: If<String>,
    }
    let Object(Answer { pid, version }) = serde_json::from_slice(body)?;
    let pid = pid.0.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
    Ok(Ping { pid, version: version.0.map(cut) })
}

/// Parses the two facts wanted of `vm.info`; the rest is skipped without being kept.
pub fn parse_info(body: &[u8]) -> Result<Info, serde_json::Error> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        state: If<String>,
        #[serde(default)]
        memory_actual_size: If<u64>,
    }
    let Object(Answer { state, memory_actual_size }) = serde_json::from_slice(body)?;
    let state = state.0.map(|word| match word.as_str() {
        "Created" => VmState::Created,
        "Running" => VmState::Running,
        "Paused" => VmState::Paused,
        "Shutdown" => VmState::Shutdown,
        _ => VmState::Other(cut(word)),
    });
    Ok(Info { state, memory: memory_actual_size.0.map(Bytes) })
}

/// Parses `vm.counters`. A device is what its counters make it.
pub fn parse_counters(body: &[u8]) -> Result<Counters, serde_json::Error> {
    let Devices(mut counters) = serde_json::from_slice(body)?;
    counters.disks.sort_unstable_by(|one, other| one.device.cmp(&other.device));
    counters.networks.sort_unstable_by(|one, other| one.device.cmp(&other.device));
    Ok(counters)
}

fn cut(mut word: String) -> String {
    word.truncate(word.floor_char_boundary(MAX_ID_BYTES));
    word
}

/// One device's counters. Latencies in microseconds.
#[derive(Default, Deserialize)]
#[serde(default)]
struct DeviceCounters {
    rx_bytes: If<u64>,
    rx_frames: If<u64>,
    tx_bytes: If<u64>,
    tx_frames: If<u64>,
    read_bytes: If<u64>,
    read_ops: If<u64>,
    read_latency_min: If<u64>,
    read_latency_max: If<u64>,
    read_latency_avg: If<u64>,
    write_bytes: If<u64>,
    write_ops: If<u64>,
    write_latency_min: If<u64>,
    write_latency_max: If<u64>,
    write_latency_avg: If<u64>,
}

impl DeviceCounters {
    fn network(&self, device: &str) -> Option<VmmNetwork> {
        let network = VmmNetwork {
            device: device.to_owned(),
            receive_bytes: self.rx_bytes.0.map(Bytes),
            receive_frames: self.rx_frames.0,
            transmit_bytes: self.tx_bytes.0.map(Bytes),
            transmit_frames: self.tx_frames.0,
        };
        (network != VmmNetwork { device: network.device.clone(), ..VmmNetwork::default() }).then_some(network)
    }

    fn disk(&self, device: &str) -> Option<VmmDisk> {
        let disk = VmmDisk {
            device: device.to_owned(),
            read_bytes: self.read_bytes.0.map(Bytes),
            written_bytes: self.write_bytes.0.map(Bytes),
            reads: self.read_ops.0,
            writes: self.write_ops.0,
            read_latency: latency(&self.read_latency_min, &self.read_latency_max, &self.read_latency_avg),
            write_latency: latency(&self.write_latency_min, &self.write_latency_max, &self.write_latency_avg),
        };
        (disk != VmmDisk { device: disk.device.clone(), ..VmmDisk::default() }).then_some(disk)
    }
}

/// Before the first request the extremes are `u64::MAX`, and the mean is that divided by the 10 000 it is scaled by.
fn latency(min: &If<u64>, max: &If<u64>, mean: &If<u64>) -> Latency {
    let told = |value: &If<u64>, none: u64| value.0.filter(|micros| *micros != none).map(Seconds::from_micros);
    Latency { min: told(min, u64::MAX), max: told(max, u64::MAX), mean: told(mean, u64::MAX / 10_000) }
}

/// `{"<device>":{"<counter>":<number>,…},…}`, no more than [`MAX_DEVICES`] of them.
struct Devices(Counters);

impl<'de> Deserialize<'de> for Devices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ById;
        impl<'de> Visitor<'de> for ById {
            type Value = Devices;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object of devices")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut devices: A) -> Result<Devices, A::Error> {
                let mut counters = Counters::default();
                let mut seen = 0;
                while let Some(id) = devices.next_key::<Cow<'de, str>>()? {
                    seen += 1;
                    if seen > MAX_DEVICES || id.len() > MAX_ID_BYTES {
                        devices.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let Object(device): Object<DeviceCounters> = devices.next_value()?;
                    // Of a key that stands there twice the last one counts, as for other readers of JSON.
                    counters.networks.retain(|known| known.device != id);
                    counters.disks.retain(|known| known.device != id);
                    counters.networks.extend(device.network(&id));
                    counters.disks.extend(device.disk(&id));
                }
                Ok(Devices(counters))
            }
        }
        deserializer.deserialize_map(ById)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::collect::kata::fixtures::{IDLE, WEB, recorded, unpacked};
    use crate::unix_http::server::Server;

    macro_rules! fixture {
        ($name:literal) => {
            &include_bytes!(concat!("../../../tests/fixtures/kata/ch-", $name))[..]
        };
    }

    #[test]
    fn who_answers() {
        let ping = parse_ping(fixture!("vmm.ping.json")).unwrap();
        assert_eq!(ping, Ping { pid: Some(135), version: Some("51.1.0".into()) });
        assert_eq!(parse_ping(b"{\"pid\":-1,\"features\":[]}").unwrap(), Ping::default());
        assert_eq!(parse_ping(b"{\"pid\":0}").unwrap().pid, None);
        assert_eq!(parse_ping(b"{\"pid\":4294967296}").unwrap().pid, None);
        assert!(parse_ping(b"[]").is_err());
    }

    #[test]
    fn state_and_size_out_of_a_long_description() {
        let size = Some(Bytes(268_435_456)); // 256 MiB
        let info = parse_info(&unpacked(fixture!("vm.info.json.gz"))).unwrap();
        assert_eq!(info, Info { state: Some(VmState::Running), memory: size });
        let info = parse_info(&unpacked(fixture!("vm.info-paused.json.gz"))).unwrap();
        assert_eq!(info, Info { state: Some(VmState::Paused), memory: size });
        let odd = parse_info(b"{\"state\":\"BreakPoint\",\"memory_actual_size\":\"big\"}").unwrap();
        assert_eq!(odd, Info { state: Some(VmState::Other("BreakPoint".into())), memory: None });
        assert_eq!(parse_info(b"{}").unwrap(), Info::default());
        let long = format!("{{\"state\":\"{}\"}}", "é".repeat(200));
        assert_eq!(parse_info(long.as_bytes()).unwrap().state.unwrap().as_str().len(), 254);
    }

    #[test]
    fn counters_by_device() {
        let counters = parse_counters(fixture!("vm.counters.json")).unwrap();
        let net0 = VmmNetwork {
            device: "_net0".into(),
            receive_bytes: Some(Bytes(726)),
            receive_frames: Some(9),
            transmit_bytes: Some(Bytes(908)),
            transmit_frames: Some(14),
        };
        let latency = |min, max, mean| Latency {
            min: Some(Seconds::from_micros(min)),
            max: Some(Seconds::from_micros(max)),
            mean: Some(Seconds::from_micros(mean)),
        };
        let disk0 = VmmDisk {
            device: "_disk0".into(),
            read_bytes: Some(Bytes(8_657_920)),
            written_bytes: Some(Bytes(4_218_880)),
            reads: Some(218),
            writes: Some(16),
            read_latency: latency(563, 62_801, 25_712),
            write_latency: latency(1155, 8009, 4912),
        };
        assert_eq!(counters, Counters { disks: vec![disk0], networks: vec![net0] });
    }

    #[test]
    fn a_device_that_has_done_nothing_has_counters_and_no_latency() {
        let counters = parse_counters(fixture!("vm.counters-before-io.json")).unwrap();
        let disk = &counters.disks[0];
        assert_eq!((disk.read_bytes, disk.reads, disk.writes), (Some(Bytes(0)), Some(0), Some(0)));
        assert_eq!((disk.read_latency, disk.write_latency), (Latency::default(), Latency::default()));
        assert_eq!(counters.networks[0].transmit_frames, Some(0));
    }

    #[test]
    fn nothing_and_odd_things_are_no_devices() {
        assert_eq!(parse_counters(b"{}").unwrap(), Counters::default());
        let odd =
            br#"{"_fs1":{},"_rng":{"x":1},"_net1":{"rx_bytes":-1,"tx_bytes":7,"new":[{}]},"_disk1":{"read_ops":1.5}}"#;
        let counters = parse_counters(odd).unwrap();
        assert_eq!(counters.disks, []);
        let net1 = VmmNetwork { device: "_net1".into(), transmit_bytes: Some(Bytes(7)), ..VmmNetwork::default() };
        assert_eq!(counters.networks, [net1]);
        for bad in ["", "[]", "{", "{\"_net0\":5}", "{\"_net0\":[1,2]}", "null"] {
            assert!(parse_counters(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_device_that_is_told_twice_is_one() {
        let twice = br#"{"_net0":{"rx_bytes":1},"_disk0":{"read_ops":2},"_net0":{"rx_bytes":3},"_disk0":{}}"#;
        let net0 = VmmNetwork { device: "_net0".into(), receive_bytes: Some(Bytes(3)), ..VmmNetwork::default() };
        assert_eq!(parse_counters(twice).unwrap(), Counters { disks: Vec::new(), networks: vec![net0] });
    }

    #[test]
    fn a_flood_of_devices_is_cut() {
        let many: Vec<String> = (0..5000).map(|n| format!("\"_net{n}\":{{\"rx_bytes\":{n}}}")).collect();
        let counters = parse_counters(format!("{{{}}}", many.join(",")).as_bytes()).unwrap();
        assert_eq!(counters.networks.len(), MAX_DEVICES);
        let long = format!("{{\"{}\":{{\"rx_bytes\":1}},\"b\":{{\"rx_bytes\":2}}}}", "a".repeat(256));
        let counters = parse_counters(long.as_bytes()).unwrap();
        assert_eq!(counters.networks.iter().map(|net| net.device.as_str()).collect::<Vec<_>>(), ["b"]);
    }

    fn answer(status: &str, body: &[u8]) -> Vec<u8> {
        // No reason phrase, as the real server has none.
        let head = format!(
            "HTTP/1.1 {status} \r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    }

    fn serving(answers: Vec<Vec<u8>>) -> Server {
        let answers = std::sync::Mutex::new(answers.into_iter());
        Server::new(move |stream| match answers.lock().unwrap().next() {
            Some(answer) => stream.write_all(&answer),
            None => Ok(()),
        })
    }

    #[tokio::test]
    async fn a_running_machine_over_its_socket() {
        let server = serving(vec![
            answer("200", &unpacked(fixture!("vm.info.json.gz"))),
            answer("200", fixture!("vm.counters.json")),
            answer("200", fixture!("vmm.ping.json")),
        ]);
        let client = CloudHypervisor::new(server.socket());
        let vmm = client.vmm(DEADLINE).await.unwrap();
        assert_eq!((vmm.state, vmm.memory), (Some(VmState::Running), Some(Bytes(268_435_456))));
        assert_eq!((vmm.disks.len(), vmm.networks.len()), (1, 1));
        assert_eq!(client.ping(DEADLINE).await.unwrap().pid, Some(135));
        for route in [INFO, COUNTERS, PING] {
            assert_eq!(server.head(), format!("GET {route} HTTP/1.1\r\nhost: localhost\r\n\r\n"));
        }
    }

    /// Head and body byte for byte as the VMMs of the recorded node sent them.
    #[tokio::test]
    async fn the_recorded_machines() {
        let files = recorded("/ch/");
        for (sandbox, memory, received) in [(WEB, 512 << 20, 83_968), (IDLE, 640 << 20, 4704)] {
            let file = |name| files[&format!("t0/kata/{sandbox}/ch/{name}.http")].clone();
            let server = serving(vec![file("vm.info"), file("vm.counters")]);
            let vmm = CloudHypervisor::new(server.socket()).vmm(DEADLINE).await.unwrap();
            assert_eq!((vmm.state, vmm.memory), (Some(VmState::Running), Some(Bytes(memory))));
            assert_eq!(vmm.networks[0].receive_bytes, Some(Bytes(received)));
            assert_eq!(vmm.disks, []);
        }
    }

    #[tokio::test]
    async fn a_machine_that_is_not_running_is_a_state_and_no_error() {
        let server = serving(vec![answer("500", fixture!("vm.info-error-500.json"))]);
        let vmm = CloudHypervisor::new(server.socket()).vmm(DEADLINE).await.unwrap();
        assert_eq!(vmm, Vmm { state: Some(VmState::NotRunning), ..Vmm::default() });

        // Made, not booted: it can be described but has nothing to count.
        let created = br#"{"state":"Created","memory_actual_size":1048576}"#;
        let server = serving(vec![answer("200", created), answer("500", fixture!("vm.counters-error-500.json"))]);
        let vmm = CloudHypervisor::new(server.socket()).vmm(DEADLINE).await.unwrap();
        assert_eq!(vmm.state, Some(VmState::Created));
        assert_eq!((vmm.memory, vmm.networks), (Some(Bytes(1 << 20)), vec![]));
    }

    #[tokio::test]
    async fn other_failures_are_errors() {
        let server = serving(vec![answer("500", b"oops"), answer("404", b"[]"), answer("200", b"<html>")]);
        let client = CloudHypervisor::new(server.socket());
        assert!(matches!(client.vmm(DEADLINE).await, Err(VmmError::Http(_))));
        assert!(matches!(client.vmm(DEADLINE).await, Err(VmmError::Http(_))));
        assert!(matches!(client.vmm(DEADLINE).await, Err(VmmError::Parse { route: INFO, .. })));
        assert!(matches!(client.vmm(DEADLINE).await, Err(VmmError::Http(HttpError { fault: Fault::NoAnswer, .. }))));
    }

    /// A stopped VMM accepts and says nothing. Both questions share one deadline.
    #[tokio::test]
    async fn a_slow_vmm_costs_the_deadline_once() {
        let server = Server::new(|stream| {
            std::thread::sleep(Duration::from_millis(400));
            stream.write_all(&answer("200", b"{\"state\":\"Running\"}"))
        });
        let started = std::time::Instant::now();
        let error = CloudHypervisor::new(server.socket()).vmm(Duration::from_millis(700)).await.unwrap_err();
        assert!(matches!(error, VmmError::Http(HttpError { fault: Fault::Late(_), route: COUNTERS, .. })), "{error:?}");
        assert!(started.elapsed() < Duration::from_millis(1100), "not 400 + 700");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_give_facts_or_an_error(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = (parse_ping(&body), parse_info(&body), parse_counters(&body));
        }

        #[test]
        fn any_json_gives_facts_or_an_error(body in "[\\[\\]{}\":,0-9a-e_nrt\\\\.-]{0,80}") {
            let _ = (parse_ping(body.as_bytes()), parse_info(body.as_bytes()), parse_counters(body.as_bytes()));
        }
    }
}
