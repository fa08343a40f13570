//! The node itself: pods run, survive the death of containerd, and leave nothing behind.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kata_pulse_realnode::{ContainerSpec, Node, PodSpec};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn pods_run_survive_containerd_and_leave_nothing() -> Result<()> {
    let node = Node::start()?;
    let pod = node.run_pod(PodSpec::new("shop", "web").burstable().memory_limit(256 << 20))?;
    let app = pod.run(ContainerSpec::new("app", ["sleep", "1000"]).cpu_quota(5_000, 100_000))?;
    ensure!(app.cgroup().path().starts_with(pod.cgroup().path()));
    ensure!(app.cgroup().processes()? == [app.pid()]);
    ensure!(pod.sandbox_cgroup().processes()? == [pod.pause_pid()]);
    ensure!(app.cgroup().number("cpu", "cpu.cfs_quota_us")? == 5_000);
    ensure!(pod.cgroup().number("memory", "memory.limit_in_bytes")? == 256 << 20);

    // The pods' network joins them: one fetches from the other what that one made.
    let server = pod.run(ContainerSpec::new("server", ["httpd", "-f", "-p", "8080", "-h", "/tmp"]))?;
    fs::write(server.root().join("tmp/greeting"), "hello").context("write into the container")?;
    let visitor = node.run_pod(PodSpec::new("shop", "visitor").best_effort())?;
    let fetch = format!("until wget -q -O - http://{}:8080/greeting; do sleep 0.1; done", pod.address()?);
    let client = visitor.run(ContainerSpec::new("client", ["sh", "-c", &fetch]))?;
    let exit = client.wait_exit(PATIENCE)?;
    ensure!(exit.code == 0 && client.log().contains("hello"), "{exit:?}, log: {}", client.log());

    let glutton = ContainerSpec::new("glutton", ["tail", "/dev/zero"]).memory_limit(32 << 20);
    let glutton = visitor.run(glutton)?;
    let exit = glutton.wait_exit(PATIENCE)?;
    ensure!(exit.reason == "OOMKilled" && exit.code == 137, "{exit:?}");

    node.kill_containerd()?;
    ensure!(app.cgroup().processes()? == [app.pid()], "the container died with containerd");
    node.start_containerd_again()?;
    let again = visitor.run(ContainerSpec::new("client", ["sleep", "1000"]).attempt(1))?;
    again.stop()?;
    again.remove()?;
    let gone = visitor.cgroup().clone();
    visitor.remove()?;
    ensure!(!gone.exists(), "{} is still there", gone.path());

    let running = app.cgroup().clone();
    let socket = node.socket();
    let name = socket.iter().nth(2).and_then(|name| name.to_str()).context("name of the run")?;
    // The pod is still running: finishing must end it.
    node.finish()?;
    ensure!(!running.exists(), "{} is still there", running.path());
    ensure!(!fs::exists(format!("/tmp/{name}"))?, "the directory is still there");
    ensure!(!fs::exists(format!("/sys/class/net/{name}"))?, "the bridge is still there");
    ensure!(!fs::read_to_string("/proc/self/mounts")?.contains(name), "a mount is still there");
    let processes = Command::new("ps").args(["-eo", "args"]).output()?;
    ensure!(!String::from_utf8(processes.stdout)?.contains(name), "a process is still there");
    Ok(())
}
