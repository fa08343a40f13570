//! What a collection and its encoding cost, against the floor: `pread` of the very files the agent holds and one copy
//! of the very bytes it wrote, nothing else. A second floor reopens each file, which any tool must pay that holds none.
//!
//! Makes real cgroups with a sleeping process each under a prefix of its own, so it needs root. Prints ratios: absolute
//! times belong to the machine. Cases are taken in turn, so that a machine that slows down slows all of them.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a program for people who measure")]

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kata_pulse::agent::AgentHandle;
use kata_pulse::collect::cgroup::layout::{Layout, V1};
use kata_pulse::config::{Config, Settings};
use kata_pulse::expose::family::Profile;
use kata_pulse::expose::text::{Format, Text};
use kata_pulse::expose::walk::{View, walk};
use kata_pulse::model::snapshot::SnapshotSource;
use kata_pulse::telemetry::Telemetry;
use rustix::time::{ClockId, clock_gettime};

const ROUNDS: usize = 40;

/// Cgroups with a process each, gone when dropped.
struct Containers {
    directories: Vec<PathBuf>,
    processes: Vec<Child>,
}

impl Containers {
    fn start(roots: &[PathBuf], count: usize) -> Self {
        let mut made = Self { directories: Vec::new(), processes: Vec::new() };
        let prefix = format!("kata-pulse-bench-{}/kubepods", std::process::id());
        for number in 0..count {
            let pod = format!("{prefix}/pod00000000-0000-4000-8000-{number:012}");
            let process = Command::new("sleep").arg("3600").stdin(Stdio::null()).spawn().unwrap();
            for root in roots {
                let container = root.join(format!("{pod}/{number:064x}"));
                fs::create_dir_all(&container).unwrap();
                fs::write(container.join("cgroup.procs"), process.id().to_string()).unwrap();
                made.directories.push(container);
            }
            made.processes.push(process);
        }
        made
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        for directory in &self.directories {
            // The container, its pod, and whatever above them has become empty.
            for ancestor in directory.ancestors().take(4) {
                if fs::remove_dir(ancestor).is_err() {
                    break;
                }
            }
        }
    }
}

/// The hierarchies a container has a directory in.
fn hierarchies(mount: &Path) -> Vec<PathBuf> {
    match Layout::detect(mount).unwrap() {
        Layout::V2 { root } => vec![root],
        Layout::V1(V1 { cpu, cpuacct, memory, blkio, pids, hugetlb, unified }) => {
            let mut all: Vec<PathBuf> =
                [cpu, cpuacct, memory, blkio, pids, hugetlb, unified].into_iter().flatten().collect();
            all.dedup();
            all
        }
    }
}

/// Files of the kernel that this process holds open.
fn held() -> Vec<PathBuf> {
    let links = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    links.filter(|path| path.starts_with("/sys/fs/cgroup") || path.to_string_lossy().ends_with("/net/dev")).collect()
}

fn cpu_now() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.try_into().unwrap(), now.tv_nsec.try_into().unwrap())
}

/// Wall and CPU time of one call.
fn time(work: impl FnOnce()) -> (Duration, Duration) {
    let (wall, cpu) = (Instant::now(), cpu_now());
    work();
    (wall.elapsed(), cpu_now() - cpu)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!("containers  files  body bytes  collect+encode cpu  wall       floor cpu  ratio  reopening cpu  ratio");
    for count in [10, 50, 150] {
        case(&runtime, count);
    }
}

fn case(runtime: &tokio::runtime::Runtime, count: usize) {
    let roots = hierarchies(Path::new("/sys/fs/cgroup"));
    let _containers = Containers::start(&roots, count);
    let settings = Settings {
        runtime_endpoint: Some("none".into()),
        max_age_secs: Some(0.0),
        sync_interval_secs: Some(3600.0),
        ..Settings::default()
    };
    let config = Config::new(settings).unwrap();
    let agent = runtime.block_on(async { AgentHandle::start(&config, Arc::new(Telemetry::new().unwrap())) });
    let mut size = 0;
    let mut collect = || {
        let snapshot = runtime.block_on(agent.snapshot(Duration::from_secs(30))).unwrap();
        let mut text = Text::new(Format::Prometheus, size + 4096);
        walk(&snapshot, &View::All, Profile::Kubelet, &mut text);
        let body = text.finish();
        size = body.len();
        body
    };
    let body = collect();
    // Young cgroups are looked at harder; what counts is what a node pays day by day.
    std::thread::sleep(Duration::from_secs(11));
    collect();
    let paths = held();
    let files: Vec<File> = paths.iter().filter_map(|path| File::open(path).ok()).collect();
    let mut buffer = vec![0u8; 64 << 10];
    let mut copy = vec![0u8; body.len()];
    let [mut wall, mut cpu, mut floor, mut reopening] = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        let (took, used) = time(|| {
            collect();
        });
        wall.push(took);
        cpu.push(used);
        let (_, used) = time(|| {
            for file in &files {
                let _ = file.read_at(&mut buffer, 0);
            }
            copy.copy_from_slice(&body);
        });
        floor.push(used);
        let (_, used) = time(|| {
            for path in &paths {
                if let Ok(mut file) = File::open(path) {
                    let _ = file.read(&mut buffer);
                }
            }
            copy.copy_from_slice(&body);
        });
        reopening.push(used);
    }
    let (wall, cpu, floor, reopening) = (median(wall), median(cpu), median(floor), median(reopening));
    let ratio = |floor: Duration| cpu.as_secs_f64() / floor.as_secs_f64();
    println!(
        "{count:>10}  {:>5}  {:>10}  {:>18.2?}  {wall:>9.2?}  {floor:>9.2?}  {:>5.2}  {reopening:>13.2?}  {:>5.2}",
        files.len(),
        body.len(),
        cpu,
        ratio(floor),
        ratio(reopening),
    );
}
