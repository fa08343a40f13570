//! The processes of the pods: what a container of the demo does all day.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::plan::Work;
use crate::process::{JOINED, die_with};

/// What the database holds in memory.
const HELD_BYTES: usize = 48 << 20;
/// What it writes each second, into the next of its files. All of them fit into its memory limit beside
/// what it holds, because on a tmpfs they would count as memory that cannot be reclaimed.
const WRITTEN_BYTES: usize = 1 << 20;
const FILES: usize = 64;

/// What stands for a guest's memory: more than the containers of a simulated guest use.
const GUEST_BYTES: usize = 32 << 20;

/// What the web server holds in memory.
const WEB_BYTES: usize = 4 << 20;

/// Arguments of the hidden sub-command.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The demo's pid
    #[arg(long)]
    parent: u32,
    /// The name the process shows in /proc
    #[arg(long)]
    name: String,
    #[arg(long)]
    work: Work,
    /// Where to send datagrams
    #[arg(long)]
    peer: Option<SocketAddr>,
    /// The sandbox it belongs to: read by whoever looks at the command line
    #[arg(long)]
    sandbox: Option<String>,
    /// Where to write files
    #[arg(long)]
    directory: Option<PathBuf>,
}

/// Joins the cgroups whose directories standard input names, one per line, and works.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    die_with(args.parent)?;
    fs::write("/proc/self/comm", &args.name).context("take a name")?;
    for directory in io::read_to_string(io::stdin())?.lines() {
        // 0 stands for the process that writes it.
        fs::write(Path::new(directory).join("cgroup.procs"), "0").with_context(|| format!("join {directory}"))?;
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{JOINED}")?;
    out.flush()?;
    drop(out);

    match args.work {
        Work::Pause | Work::Sleep => sleep(),
        Work::Web => web(args.peer),
        Work::Spin => spin(),
        Work::Hypervisor => hypervisor(),
        Work::Database => database(args.directory.as_deref(), args.peer),
        Work::Job => {
            compute_for(Duration::from_millis(100));
            Ok(())
        }
    }
}

fn sleep() -> ! {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

fn spin() -> ! {
    loop {
        compute_for(Duration::from_secs(1));
    }
}

fn web(peer: Option<SocketAddr>) -> anyhow::Result<()> {
    let _held = held(WEB_BYTES);
    let mut chat = Chat::with(peer)?;
    loop {
        compute_for(Duration::from_millis(1));
        chat.say();
        thread::sleep(Duration::from_millis(50));
    }
}

fn hypervisor() -> ! {
    let _guest = held(GUEST_BYTES);
    loop {
        compute_for(Duration::from_millis(2));
        thread::sleep(Duration::from_millis(50));
    }
}

fn database(directory: Option<&Path>, peer: Option<SocketAddr>) -> anyhow::Result<()> {
    let directory = directory.context("a directory to write to")?;
    let held = held(HELD_BYTES);
    let page = held.get(..WRITTEN_BYTES).context("it holds more than it writes")?;
    let mut chat = Chat::with(peer)?;
    for number in (0..FILES).cycle() {
        let path = directory.join(format!("{number}.db"));
        let mut file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        file.write_all(page)?;
        file.sync_data()?;
        chat.say();
        thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

/// Memory that is really there: pages nobody wrote to are not charged.
fn held(bytes: usize) -> Vec<u8> {
    black_box(vec![1; bytes])
}

fn compute_for(time: Duration) {
    let begun = Instant::now();
    let mut value = 1_u64;
    while begun.elapsed() < time {
        for _ in 0..1000 {
            value = black_box(value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    }
}

/// A little network traffic, if there is anybody to talk to.
struct Chat(Option<UdpSocket>);

impl Chat {
    fn with(peer: Option<SocketAddr>) -> anyhow::Result<Self> {
        let Some(peer) = peer else { return Ok(Self(None)) };
        let socket = UdpSocket::bind("0.0.0.0:0").context("open a socket")?;
        socket.connect(peer).with_context(|| format!("talk to {peer}"))?;
        socket.set_nonblocking(true)?;
        Ok(Self(Some(socket)))
    }

    /// Sends a datagram and takes what has come. Errors are the network's way of not answering.
    fn say(&mut self) {
        if let Some(socket) = &self.0 {
            socket.send(&[b'.'; 256]).ok();
            while socket.recv(&mut [0; 512]).is_ok() {}
        }
    }
}
