//! An agent behind TLS or passwords: it says that it is ready on its health listener, and logs everything, so that a
//! secret in a log line is found.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::agent::Agent;
use super::host::Host;
use super::wire::addresses;

/// How long the agent may take for what it does by itself on a slow machine under load.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running agent and its node.
pub struct Guarded {
    pub agent: Agent,
    /// Where everything is served.
    pub address: SocketAddr,
    /// Where health alone is served.
    pub health: SocketAddr,
    _host: Host,
}

impl Guarded {
    /// Starts with a web configuration.
    #[track_caller]
    pub fn start(web_config: &Path, more: &[&str]) -> Self {
        let mut arguments = vec!["--web-config".to_owned(), web_config.display().to_string()];
        arguments.extend(more.iter().map(ToString::to_string));
        Self::start_in(&[], &arguments)
    }

    /// Starts with these variables and flags.
    #[track_caller]
    pub fn start_in(environment: &[(&str, String)], more: &[String]) -> Self {
        let host = Host::v2();
        let mut arguments = host.flags();
        let always = ["--health-listen-address", "127.0.0.1:0", "--max-age-secs", "3600", "--log-level", "trace"];
        arguments.extend(always.map(OsString::from));
        arguments.extend(more.iter().map(OsString::from));
        let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let agent = Agent::launch_in(&environment, arguments);
        let mut health = None;
        agent.wait_until("it says where it serves health", PATIENCE, || {
            health = agent.log().iter().find_map(|line| health_address(line));
            health.is_some()
        });
        let (address, health) = (addresses(&agent)[0], health.expect("waited for"));
        agent.wait_until("/readyz answers 200", PATIENCE, || {
            ureq::get(format!("http://{health}/readyz")).call().is_ok()
        });
        Self { agent, address, health, _host: host }
    }

    /// Lines of the log with this text.
    pub fn logged(&self, text: &str) -> usize {
        self.agent.log().iter().filter(|line| line.contains(text)).count()
    }

    /// Fails if any of these texts, or what stands for it on the wire, is in the log.
    #[track_caller]
    pub fn assert_never_logged(&self, secrets: &[&str]) {
        let log = self.agent.log();
        assert!(log.iter().any(|line| line.contains("level=debug") || line.contains("level=trace")), "all is logged");
        for secret in secrets {
            assert!(secret.len() > 5, "{secret:?} is too short to be searched for");
            let found = log.iter().find(|line| line.contains(secret));
            assert_eq!(found, None, "{secret:?} is in the log");
        }
    }
}

fn health_address(line: &str) -> Option<SocketAddr> {
    let (_, fields) = line.split_once("msg=\"listening for health checks\"")?;
    fields.split_once("address=")?.1.split_whitespace().next()?.parse().ok()
}
