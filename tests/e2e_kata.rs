//! Kata pods beside runc's on a real node: a real containerd makes both, by way of two runtime handlers. Only the guests
//! are simulated, so the test knows what is true in them.
//!
//! One scenario in the order of a node's life, because its parts share a node that takes a while to fill.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kata_pulse_realnode::{Cgroup, Container, ContainerSpec, Exit, Node, Pod, PodSpec};
use kata_pulse_simulator::kata::Runtime;
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use support::agent::Agent;
use support::cadvisor::{ids, scrape};
use support::exposition::Page;
use support::guests::{self, Guests};
use support::truth::{Resident, values_are_the_kernels};

/// For what containerd and the kernel do in their own time.
const PATIENCE: Duration = Duration::from_secs(30);

/// For a new sandbox, of which its directory tells: less than the agent's interval, in which it would find it anyway.
const QUICK: Duration = Duration::from_secs(4);

/// For all else, of which nothing on the host tells: an interval of the agent that looks again every second.
const SOON: Duration = Duration::from_secs(8);
const LOOKS_OFTEN: [&str; 2] = ["--sync-interval-secs", "1"];

#[test]
fn pods_of_runtime_rs_beside_runc_s_are_told_as_they_are() -> Result<()> {
    a_node_lives(Runtime::Rust)
}

#[test]
fn pods_of_the_go_runtime_beside_runc_s_are_told_as_they_are() -> Result<()> {
    a_node_lives(Runtime::Go)
}

fn a_node_lives(runtime: Runtime) -> Result<()> {
    let node = Node::start_with(&[guests::handler()])?;
    let guests = Guests::on(&node, runtime)?;
    let mut runc = Resident::new(node.run_pod(PodSpec::new("shop", "web").burstable())?);
    runc.running.push(runc.pod.run(ContainerSpec::new("app", ["sleep", "1000"]))?);
    let runc = [runc];

    let agent = Agent::start(guests.flags());
    let scene = Scene { node: &node, guests: &guests, agent: &agent };
    let mut kata = vec![scene.a_new_pod_is_there("vault")?, scene.a_new_pod_is_there("batch")?];
    agent.stop(0);

    let agent = Agent::start(guests.flags().iter().map(String::as_str).chain(LOOKS_OFTEN));
    let scene = Scene { node: &node, guests: &guests, agent: &agent };
    let [app, sidecar] = ["app", "sidecar"].map(|name| ContainerSpec::new(name, ["sleep", "1000"]));
    scene.add(&mut kata[0], [app.clone().memory_limit(64 << 20), sidecar.cpu_quota(20_000, 100_000)])?;
    scene.add(&mut kata[1], [app])?;
    scene.all_is_told(&runc, &kata)?;
    scene.sandboxes_are_listed(&runc, &kata);

    scene.a_container_that_comes_later_is_seen_to_come_and_go(&runc, &mut kata)?;
    scene.a_container_that_outgrows_its_memory_is_counted(&mut kata[1])?;
    scene.containerd_may_die_and_come_back(&runc, &mut kata)?;
    let batch = kata.pop().context("two pods")?;
    scene.a_pod_whose_shim_has_died_is_gone(batch)?;
    scene.all_is_told(&runc, &kata)?;
    let vault = kata.pop().context("the other pod")?;
    scene.a_removed_pod_leaves_nothing(vault)?;
    scene.all_is_told(&runc, &kata)?;

    assert_eq!(guests.violations(), "", "asked of guests, shims and hypervisors");
    agent.stop(0);
    node.finish()
}

/// The node and who looks at it.
struct Scene<'node, 'agent> {
    node: &'node Node,
    guests: &'node Guests,
    agent: &'agent Agent,
}

impl<'node> Scene<'node, '_> {
    /// Runs a Kata pod, which is found by its directory.
    fn a_new_pod_is_there(&self, name: &str) -> Result<Resident<'node>> {
        let pod = self.node.run_pod(PodSpec::new("shop", name).burstable().handler(guests::HANDLER))?;
        self.agent.wait_until("the new pod is up", QUICK, || up(&scrape(self.agent), &pod) == Some(1.0));
        let resident = Resident::new(pod);
        self.guests.are_told_as_they_are(self.agent, std::slice::from_ref(&resident));
        Ok(resident)
    }

    /// Runs containers in a Kata pod and waits until they have their rows.
    fn add(&self, resident: &mut Resident<'node>, specs: impl IntoIterator<Item = ContainerSpec>) -> Result<()> {
        for spec in specs {
            resident.running.push(resident.pod.run(spec)?);
        }
        self.soon(&format!("all of {} is there", resident.pod.name()), || {
            let page = scrape(self.agent);
            resident.running.iter().all(|container| has_row(&page, container.id()))
        });
        Ok(())
    }

    /// Both kinds at once: exactly the rows there must be, with the true values.
    #[track_caller]
    fn all_is_told(&self, runc: &[Resident<'_>], kata: &[Resident<'_>]) -> Result<()> {
        self.guests.are_told_as_they_are(self.agent, kata);
        values_are_the_kernels(self.agent, runc)?;
        let page = scrape(self.agent);
        let root = self.node.cgroup_root();
        let groups = ["kubepods", "kubepods/burstable", "kubepods/besteffort"].map(|group| format!("{root}/{group}"));
        let residents = || runc.iter().chain(kata);
        // A Kata pod's sandbox has a cgroup on the node, which holds the machine: it must not be taken for a container.
        let expected: BTreeSet<String> = residents().flat_map(Resident::ids).chain(groups).collect();
        for family in ["container_memory_usage_bytes", "container_cpu_usage_seconds_total", "container_last_seen"] {
            assert_eq!(ids(&page, family, &root), expected, "rows of {family}");
        }
        let networked: BTreeSet<String> =
            residents().map(|resident| resident.pod.sandbox_cgroup().path().to_owned()).collect();
        assert_eq!(ids(&page, "container_network_receive_bytes_total", &root), networked, "rows with a network");
        for resident in runc {
            assert_eq!(info(&page, &resident.pod, "runc", "", ""), Some(1.0));
        }
        for Resident { pod, .. } in kata {
            assert_eq!(info(&page, pod, "kata", guests::HANDLER, "clh"), Some(1.0));
            assert_eq!(up(&page, pod), Some(1.0), "{} is up", pod.name());
            self.check_host_side(&page, pod)?;
        }
        Ok(())
    }

    /// `/sandboxes` tells both kinds apart.
    fn sandboxes_are_listed(&self, runc: &[Resident<'_>], kata: &[Resident<'_>]) {
        let list: Value = serde_json::from_str(self.agent.get("/sandboxes").text()).expect("JSON");
        let list = list.as_array().expect("an array");
        assert_eq!(list.len(), runc.len() + kata.len());
        let kinds = [(runc, json!(["runc", "", null])), (kata, json!(["kata", guests::HANDLER, "clh"]))];
        for (residents, kind) in kinds {
            for Resident { pod, running, .. } in residents {
                let entry = list.iter().find(|entry| entry["sandbox_id"] == pod.id()).expect("the pod is listed");
                let told = |keys: &[&str]| Value::from_iter(keys.iter().map(|key| entry[*key].clone()));
                let names = told(&["namespace", "pod_name", "uid", "state"]);
                assert_eq!(names, json!([pod.namespace(), pod.name(), pod.uid(), "ready"]));
                assert_eq!(told(&["runtime", "runtime_handler", "hypervisor"]), kind, "{}", pod.name());
                let containers = entry["containers"].as_array().into_iter().flatten();
                let listed: BTreeSet<&str> = containers.filter_map(|container| container["id"].as_str()).collect();
                assert_eq!(listed, running.iter().map(Container::id).collect(), "containers of {}", pod.name());
            }
        }
        let only = self.agent.get("/sandboxes?runtime=kata");
        assert_eq!(
            serde_json::from_str::<Value>(only.text()).expect("JSON").as_array().map(Vec::len),
            Some(kata.len())
        );
    }

    fn a_container_that_comes_later_is_seen_to_come_and_go(
        &self,
        runc: &[Resident<'_>],
        kata: &mut [Resident<'node>],
    ) -> Result<()> {
        self.add(&mut kata[0], [ContainerSpec::new("late", ["sleep", "1000"])])?;
        self.all_is_told(runc, kata)?;
        let late = kata[0].running.pop().context("the late one")?;
        let id = late.id().to_owned();
        late.stop()?;
        assert_eq!(late.wait_exit(PATIENCE)?.code, 137, "it was killed");
        late.remove()?;
        // At once: the guest says that it does not know it.
        self.all_is_told(runc, kata)?;
        // It may have been listed again between its end and its removal.
        self.soon("it is no longer listed", || !self.agent.get("/sandboxes").text().contains(&id));
        Ok(())
    }

    /// The guest counts it, and by way of the shim's event and the runtime's status the container does.
    fn a_container_that_outgrows_its_memory_is_counted(&self, resident: &mut Resident<'node>) -> Result<()> {
        let go = self.node.directory().join("go");
        let file = go.display().to_string();
        let command = ["outgrow-memory-once", &file];
        self.add(resident, [ContainerSpec::new("glutton", command).memory_limit(32 << 20)])?;
        let kills = |page: &Page| {
            let container = [("namespace", "shop"), ("pod", "batch"), ("container", "glutton")];
            let of_container = page.lookup("kata_pulse_container_oom_kills_total", &container);
            let of_guest = page.lookup("kata_pulse_guest_oom_kills_total", &[("pod", "batch")]);
            (of_container.unwrap_or_default(), of_guest)
        };
        assert_eq!(kills(&scrape(self.agent)), (0.0, Some(0.0)));
        let glutton = resident.running.pop().context("the glutton")?;
        fs::write(&go, "")?;
        assert_eq!(glutton.wait_exit(PATIENCE)?, Exit { code: 137, reason: "OOMKilled".to_owned() });
        self.soon("the kill is counted once", || {
            let page = scrape(self.agent);
            assert!(kills(&page).0 <= 1.0, "it was one kill");
            !has_row(&page, glutton.id()) && kills(&page) == (1.0, Some(1.0)) && up(&page, &resident.pod) == Some(1.0)
        });
        resident.exited.push(glutton);
        Ok(())
    }

    /// Shims and guests live on without containerd, and a new one finds them again.
    fn containerd_may_die_and_come_back(&self, runc: &[Resident<'_>], kata: &mut [Resident<'node>]) -> Result<()> {
        let shims =
            |kata: &[Resident<'_>]| kata.iter().map(|resident| self.shim(&resident.pod)).collect::<Result<Vec<_>>>();
        let before = shims(kata)?;
        self.node.kill_containerd()?;
        self.soon("kata_pulse_cri_up is 0", || scrape(self.agent).value("kata_pulse_cri_up", &[]) == 0.0);
        self.all_is_told(runc, kata)?;
        self.node.start_containerd_again()?;
        self.soon("kata_pulse_cri_up is 1", || scrape(self.agent).value("kata_pulse_cri_up", &[]) == 1.0);
        self.all_is_told(runc, kata)?;
        assert_eq!(shims(kata)?, before, "the shims are the same");
        self.add(&mut kata[0], [ContainerSpec::new("reborn", ["sleep", "1000"])])?;
        self.all_is_told(runc, kata)
    }

    /// containerd cleans up by the shim's own `delete`, and the sandbox is no longer ready.
    fn a_pod_whose_shim_has_died_is_gone(&self, resident: Resident<'node>) -> Result<()> {
        let pod = resident.pod;
        let left = self.what_there_is(&pod)?;
        let shim = i32::try_from(self.shim(&pod)?).ok().and_then(Pid::from_raw).context("a pid")?;
        rustix::process::kill_process(shim, Signal::KILL).context("kill the shim")?;
        self.goes(&left);
        let cgroup = pod.cgroup().clone();
        pod.remove()?;
        assert!(!cgroup.exists(), "{} is still there", cgroup.path());
        Ok(())
    }

    fn a_removed_pod_leaves_nothing(&self, resident: Resident<'node>) -> Result<()> {
        let (left, cgroup) = (self.what_there_is(&resident.pod)?, resident.pod.cgroup().clone());
        resident.pod.remove()?;
        assert!(!cgroup.exists(), "{} is still there", cgroup.path());
        self.goes(&left);
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        assert!(!mounts.contains(&left.id), "a mount is still there");
        self.soon("it is no longer listed", || !self.agent.get("/sandboxes").text().contains(&left.id));
        assert_eq!(self.agent.get(&format!("/metrics?sandbox={}", left.id)).status, 404);
        // An open file of the pod's network namespace keeps the kernel from freeing it.
        let files = [left.id.clone(), format!("/proc/{}/", left.hypervisor)];
        self.soon("the removed pod's files are closed", || {
            !self.agent.open_files().iter().any(|open| files.iter().any(|file| open.contains(file)))
        });
        Ok(())
    }

    /// Looks at a pod while it lives: shim, hypervisor and virtiofsd, a socket, a cgroup.
    fn what_there_is(&self, pod: &Pod<'_>) -> Result<Left> {
        let address = fs::read_to_string(bundle(self.node, pod).join("address")).context("address of the shim")?;
        let socket = PathBuf::from(address.trim_start_matches("unix://"));
        let cgroup = self.guests.cgroup(self.node, pod);
        assert!(socket.exists() && cgroup.exists(), "{} and {}", socket.display(), cgroup.path());
        assert_eq!(processes_of(pod.id()).len(), 3, "processes of {}", pod.name());
        Ok(Left { id: pod.id().to_owned(), hypervisor: pod.pause_pid(), socket, cgroup })
    }

    /// All traces of a pod are gone within the time that the agent has.
    #[track_caller]
    fn goes(&self, left: &Left) {
        let deadline = Instant::now() + SOON;
        loop {
            let traces = self.traces(left);
            if traces.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "not gone after {SOON:?}:\n{}", traces.join("\n"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What is served of a sandbox, and what is on the node but is not containerd's.
    fn traces(&self, left: &Left) -> Vec<String> {
        let id = left.id.as_str();
        let page = scrape(self.agent);
        // The pod's shared memory is a file system of the node's until containerd unmounts it.
        let tells = |(name, value): (&String, &String)| name != "device" && value.contains(id);
        let served = page.samples().filter(|sample| sample.labels.iter().any(tells));
        let mut traces: Vec<String> = served.map(|sample| format!("{sample:?}")).collect();
        traces.extend(processes_of(id).iter().map(|pid| format!("process {pid}")));
        let files = self.guests.files().into_iter().chain([left.socket.clone()]).filter(|path| path.exists());
        let files = files.filter(|path| *path == left.socket || path.to_string_lossy().contains(id));
        traces.extend(files.map(|path| path.display().to_string()));
        traces.extend(left.cgroup.exists().then(|| left.cgroup.path().to_owned()));
        traces
    }

    /// What the node pays for a sandbox is read from its real processes and their real cgroup.
    #[track_caller]
    fn check_host_side(&self, page: &Page, pod: &Pod<'_>) -> Result<()> {
        for component in ["shim", "hypervisor", "virtiofsd"] {
            let labels = [("sandbox_id", pod.id()), ("component", component)];
            let threads = page.value("kata_pulse_sandbox_process_threads", &labels);
            assert!(threads >= 1.0, "{component} of {}", pod.name());
        }
        let place = self.guests.cgroup(self.node, pod);
        for pid in processes_of(pod.id()) {
            let places = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
            let memory = places.lines().find_map(|line| line.split_once(":memory:"));
            assert_eq!(memory.map(|(_, path)| path), Some(place.path()), "cgroup of process {pid}");
        }
        let cpu = page.value("kata_pulse_sandbox_host_cpu_seconds_total", &[("sandbox_id", pod.id())]);
        let memory = page.value("kata_pulse_sandbox_host_memory_bytes", &[("sandbox_id", pod.id())]);
        assert!(cpu > 0.0 && memory > 0.0, "{} costs the node {cpu} s and {memory} bytes", pod.name());
        Ok(())
    }

    /// The pid of a pod's shim.
    fn shim(&self, pod: &Pod<'_>) -> Result<u32> {
        let pid = fs::read_to_string(bundle(self.node, pod).join("shim.pid")).context("shim.pid")?;
        assert!(processes_of(pod.id()).contains(&pid.parse()?), "shim {pid} has ended");
        Ok(pid.parse()?)
    }

    /// Asks until it is so, which the agent must bring about by itself.
    #[track_caller]
    fn soon(&self, what: &str, condition: impl FnMut() -> bool) {
        self.agent.wait_until(what, SOON, condition);
    }
}

/// Where to look for what may be left of a pod.
struct Left {
    id: String,
    hypervisor: u32,
    socket: PathBuf,
    cgroup: Cgroup,
}

/// The bundle of a pod's sandbox.
fn bundle(node: &Node, pod: &Pod<'_>) -> PathBuf {
    node.state().join("io.containerd.runtime.v2.task/k8s.io").join(pod.id())
}

/// Processes with an argument `-id <sandbox>`.
fn processes_of(sandbox: &str) -> Vec<u32> {
    let names = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.file_name());
    let pids = names.filter_map(|name| name.to_str()?.parse::<u32>().ok());
    let is_ours = |pid: &u32| {
        let command = fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).unwrap_or_default();
        command.split(|byte| *byte == 0).any(|argument| argument == sandbox.as_bytes())
    };
    pids.filter(is_ours).collect()
}

fn up(page: &Page, pod: &Pod<'_>) -> Option<f64> {
    let labels = [("sandbox_id", pod.id()), ("namespace", pod.namespace()), ("pod", pod.name())];
    page.lookup("kata_pulse_sandbox_up", &labels)
}

fn info(page: &Page, pod: &Pod<'_>, runtime: &str, handler: &str, hypervisor: &str) -> Option<f64> {
    let names = [("sandbox_id", pod.id()), ("namespace", pod.namespace()), ("pod", pod.name()), ("uid", pod.uid())];
    let kinds = [("runtime", runtime), ("runtime_handler", handler), ("hypervisor", hypervisor)];
    page.lookup("kata_pulse_sandbox_info", &[&names[..], &kinds].concat())
}

fn has_row(page: &Page, container: &str) -> bool {
    page.lookup("container_memory_usage_bytes", &[("name", container)]).is_some()
}
