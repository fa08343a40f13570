//! A containerd shim, version 2, whose Kata sandboxes are simulated: registered as a runtime handler, it lets a real
//! containerd make "Kata" pods, beside those of runc.
//!
//! ```text
//! containerd-shim-kata-v2 -namespace k8s.io -address <socket> -publish-binary <path> -id <id> [-debug] start
//! containerd-shim-kata-v2 … -id <id> -bundle <path> delete
//! ```
//!
//! `start` runs in the bundle of a sandbox or a container, leaves a shim running for a sandbox, and prints the address
//! of the pod's shim. Without a word at the end it is that shim.

mod arguments;

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail, ensure};
use kata_pulse_simulator::kata::shim::{self, Bundle, Invocation};

use arguments::Arguments;

/// What a shim says to the `start` that has started it.
const READY: &str = "ready";

fn main() -> ExitCode {
    let outcome = Arguments::parse(env::args().skip(1)).and_then(|arguments| run(&arguments));
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    // containerd shows it; nothing is left to be done about an error on the way there.
    writeln!(io::stderr(), "containerd-shim-kata-v2: {error:#}").ok();
    ExitCode::FAILURE
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let words: Vec<&str> = arguments.words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["start"] => start(arguments),
        ["delete"] => print(&shim::delete(&invocation(arguments, arguments.flag("id")?)?, &bundle(arguments)?)?),
        ["stand-in", name] => shim::stand_in(name, arguments.flag("parent")?.parse().context("a pid")?),
        [] => serve(arguments),
        other => bail!("{other:?} is nothing a shim does"),
    }
}

fn invocation(arguments: &Arguments, sandbox: &str) -> anyhow::Result<Invocation> {
    Ok(Invocation {
        namespace: arguments.flag("namespace")?.to_owned(),
        address: arguments.flag("address")?.to_owned(),
        sandbox: sandbox.to_owned(),
    })
}

fn bundle(arguments: &Arguments) -> anyhow::Result<PathBuf> {
    arguments.flag("bundle").map(PathBuf::from).or_else(|_| env::current_dir().context("the bundle"))
}

/// Finds the pod's shim, or makes it, and prints its address.
fn start(arguments: &Arguments) -> anyhow::Result<()> {
    let directory = bundle(arguments)?;
    let bundle = Bundle::read(&directory, arguments.flag("id")?)?;
    let socket = invocation(arguments, &bundle.sandbox)?.socket();
    if bundle.is_sandbox() {
        let pid = spawn(arguments, &directory)?;
        fs::write(directory.join("shim.pid"), pid.to_string()).context("write shim.pid")?;
    } else {
        ensure!(socket.exists(), "the sandbox {} has no shim", bundle.sandbox);
    }
    let address = format!("unix://{}", socket.display());
    fs::write(directory.join("address"), &address).context("write the address")?;
    print(address.as_bytes())
}

/// Starts the shim, which outlives this process, and gives its pid once containerd may connect.
fn spawn(arguments: &Arguments, bundle: &Path) -> anyhow::Result<u32> {
    let mut command = Command::new(env::current_exe().context("find this program")?);
    for name in ["namespace", "address", "publish-binary", "id"] {
        command.arg(format!("-{name}")).arg(arguments.flag(name)?);
    }
    // containerd reads its shims' logs from a pipe. For reading as well: opening it for writing alone may wait.
    let log = OpenOptions::new().read(true).write(true).open(bundle.join("log"));
    let log = log.or_else(|_| File::create("/dev/null")).context("open the log")?;
    command.current_dir(bundle).process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut child = command.spawn().context("start the shim")?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("standard output is a pipe")?).read_line(&mut line)?;
    if line.trim_end() != READY {
        bail!("the shim did not start: {}", child.wait()?);
    }
    Ok(child.id())
}

/// Is the shim of a sandbox.
fn serve(arguments: &Arguments) -> anyhow::Result<()> {
    let events = env::var_os("TTRPC_ADDRESS").context("containerd names no socket for events")?;
    let ready = || print(format!("{READY}\n").as_bytes());
    invocation(arguments, arguments.flag("id")?)?.serve(&bundle(arguments)?, events.into(), ready)
}

fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}
