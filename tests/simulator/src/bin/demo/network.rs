//! Gives a pod an `eth0`: a veth pair through iproute2, if it is there, and somebody who answers.
//!
//! Addresses are from 198.18.0.0/15, which RFC 2544 sets aside for benchmarks, so that no route of this host
//! leads there. The host's end is named `kpd<pid>-<n>`: 15 characters at most, and the pid for the sweep.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, ensure};

/// What the names of the host's ends begin with.
pub(crate) const LINK_PREFIX: &str = "kpd";

/// The first address of 198.18.0.0/15, and how many networks of four addresses it holds.
const FIRST_ADDRESS: u32 = 0xc612_0000;
const NETWORKS: u32 = 1 << 15;

/// Networks set aside for one demo.
const PODS_OF_A_DEMO: u32 = 16;

/// A veth pair between this host and a pod. Removed when dropped.
#[derive(Debug)]
pub(crate) struct Link {
    name: String,
    /// The address of `eth0` in the pod.
    pub(crate) pod: Ipv4Addr,
    /// Where datagrams from the pod are answered.
    pub(crate) echo: SocketAddr,
}

/// Whether `ip` is there.
pub(crate) fn available() -> bool {
    run("ip", &["-Version"]).is_ok()
}

impl Link {
    /// Connects the network namespace of the process `pid`; `number` tells the pods of one demo apart.
    pub(crate) fn connect(pid: u32, number: u32) -> anyhow::Result<Self> {
        let demo = std::process::id();
        let (host, pod) = addresses(demo, number);
        let name = format!("{LINK_PREFIX}{demo}-{number}");
        let pid = pid.to_string();
        run("ip", &["link", "add", &name, "type", "veth", "peer", "name", "eth0", "netns", &pid])?;
        // From here on, the link is removed when a step fails.
        let mut link = Self { name, pod, echo: SocketAddr::from((host, 0)) };
        run("ip", &["address", "add", &format!("{host}/30"), "dev", &link.name])?;
        run("ip", &["link", "set", &link.name, "up"])?;
        let namespace = format!("--net=/proc/{pid}/ns/net");
        let inside = |arguments: &[&str]| run("nsenter", &[&[namespace.as_str(), "--", "ip"], arguments].concat());
        inside(&["address", "add", &format!("{pod}/30"), "dev", "eth0"])?;
        inside(&["link", "set", "eth0", "up"])?;
        inside(&["link", "set", "lo", "up"])?;
        link.echo = answer_at(host)?;
        Ok(link)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Already gone when the pod's namespace went first: a pair goes with either end.
        remove(&self.name).ok();
    }
}

/// Removes the link with this name.
pub(crate) fn remove(name: &str) -> anyhow::Result<()> {
    run("ip", &["link", "delete", name])
}

/// The two addresses of a network of four, chosen so that two demos rarely meet.
fn addresses(demo: u32, number: u32) -> (Ipv4Addr, Ipv4Addr) {
    let network = FIRST_ADDRESS + (demo.wrapping_mul(PODS_OF_A_DEMO).wrapping_add(number) % NETWORKS) * 4;
    (Ipv4Addr::from(network + 1), Ipv4Addr::from(network + 2))
}

/// Sends every datagram back, on a thread that lives as long as the demo. Bound to the host's end of one
/// link, so it can be reached from that pod alone.
fn answer_at(host: Ipv4Addr) -> anyhow::Result<SocketAddr> {
    let socket = UdpSocket::bind((host, 0)).with_context(|| format!("listen on {host}"))?;
    let address = socket.local_addr()?;
    let answer = move || -> io::Result<()> {
        let mut buffer = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut buffer)?;
            // A datagram that finds no way back is none of a pod's concern.
            socket.send_to(&buffer[..length], from).ok();
        }
    };
    thread::Builder::new().name("echo".to_owned()).spawn(answer)?;
    Ok(address)
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let command = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().with_context(command)?;
    ensure!(output.status.success(), "{}: {}", command(), String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_fit_for_any_pid() {
        let longest = format!("{LINK_PREFIX}{}-{}", 4_194_304, PODS_OF_A_DEMO - 1);
        assert!(longest.len() <= 15, "{longest}");
        for demo in [1, 4_194_304, u32::MAX] {
            let (host, pod) = addresses(demo, PODS_OF_A_DEMO - 1);
            assert_eq!(host.octets()[0], 198);
            assert!([18, 19].contains(&pod.octets()[1]), "{pod}");
            assert_eq!(u32::from(pod), u32::from(host) + 1);
        }
    }
}
