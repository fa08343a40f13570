//! What the service manager is told about this process: that it serves, reloads, stops, and is alive.
//!
//! Speaks systemd's notification protocol, and does nothing at all where no manager listens. Its watchdog is fed by a
//! task of the async runtime, and only while the agent calls itself live: a runtime that stands still and a collection
//! that is stuck for good both let it starve, and the manager starts the agent anew.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::model::snapshot::{Health, SnapshotSource};

/// How often the status is looked at where no watchdog asks for more.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Longest status told: it is one line of `systemctl status`.
const MAX_STATUS: usize = 400;

/// The service manager's view of this process.
#[derive(Debug)]
pub struct Service {
    /// `None` where no manager listens.
    line: Option<Arc<Line>>,
    task: Option<JoinHandle<()>>,
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Service {
    /// Says that the agent serves on these addresses, and from now on that it is alive. On the current tokio runtime.
    ///
    /// A first discovery is not waited for: it may have to wait for a container runtime, whose absence is no failure.
    pub fn start(source: Arc<dyn SnapshotSource>, addresses: &[SocketAddr]) -> Self {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Self { line: None, task: None };
        }
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let line = Arc::new(Line { serving: format!("serving on {}", addresses.join(", ")), told: Mutex::default() });
        line.say(&[NotifyState::Ready]);
        let task = tokio::spawn(attend(Arc::clone(&line), source, sd_notify::watchdog_enabled()));
        Self { line: Some(line), task: Some(task) }
    }

    /// Says that the configuration is being read again; [`Service::reloaded`] follows.
    pub fn reloading(&self) {
        let Some(line) = &self.line else { return };
        match NotifyState::monotonic_usec_now() {
            Ok(now) => line.say(&[NotifyState::Reloading, now]),
            // Newer managers end a service that tells of a reload without the time of it.
            Err(error) => tracing::warn!(%error, "no monotonic clock, the service manager is not told of the reload"),
        }
    }

    /// Says that the reload is over, whichever configuration is in force.
    pub fn reloaded(&self) {
        if let Some(line) = &self.line {
            line.say(&[NotifyState::Ready]);
        }
    }

    /// Says that the agent ends. It is called alive until it has ended.
    pub fn stopping(&self) {
        if let Some(line) = &self.line {
            line.say(&[NotifyState::Stopping]);
        }
    }
}

/// Keeps the status true and feeds the watchdog: at half its interval, as the manager's manual asks.
async fn attend(line: Arc<Line>, source: Arc<dyn SnapshotSource>, watchdog: Option<Duration>) {
    let interval = watchdog.map_or(STATUS_INTERVAL, |limit| (limit / 2).max(Duration::from_millis(1)));
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let health = source.health();
        if watchdog.is_some() && health.live {
            line.say(&[NotifyState::Watchdog]);
        }
        line.tell(&status(&line.serving, &health));
    }
}

/// What `systemctl status` shows, in one line: `serving on 127.0.0.1:8090; runtime: no container runtime socket found`.
fn status(serving: &str, health: &Health) -> String {
    let mut status = serving.to_owned();
    for check in &health.checks {
        if let Some(problem) = &check.problem {
            status.push_str(&format!("; {}: {problem}", check.name));
        }
    }
    // A line break would begin another message.
    status.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(MAX_STATUS).collect()
}

/// The way to the manager, and the status it was told last.
#[derive(Debug)]
struct Line {
    serving: String,
    told: Mutex<String>,
}

impl Line {
    /// A manager that does not hear is no reason to stop measuring.
    fn say(&self, states: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(states) {
            tracing::debug!(%error, "the service manager was not told");
        }
    }

    /// Tells a status that differs from the last one.
    fn tell(&self, status: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != status {
            self.say(&[NotifyState::Status(status)]);
            status.clone_into(&mut told);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::snapshot::Check;

    #[test]
    fn the_status_names_problems_in_one_line() {
        let health = |checks| Health { live: true, ready: true, checks };
        assert_eq!(status("serving on [::1]:8090", &health(vec![])), "serving on [::1]:8090");
        let fine = Check { name: "discovery", problem: None };
        let bad = Check { name: "runtime", problem: Some("gone\nREADY=1\ttoday".to_owned()) };
        assert_eq!(status("serving", &health(vec![fine, bad])), "serving; runtime: gone READY=1 today");
        let long = Check { name: "cgroups", problem: Some("ä".repeat(1000)) };
        assert_eq!(status("serving", &health(vec![long])).chars().count(), MAX_STATUS);
    }
}
