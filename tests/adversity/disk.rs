//! A disk that is full or may not be written: the agent writes nothing but its log, and does without that.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::FileTypeExt;

use rustix::process::Signal;

use crate::support::agent::Agent;
use crate::support::wire::addresses;
use crate::{PATIENCE, assert_whole, eager, node_with};

/// Everything that is mounted becomes read-only, for the agent alone.
const READ_ONLY: &str = "\
while read -r _ mount kind _; do
  case $kind in proc|sysfs|devpts|mqueue) continue;; esac
  mount -o remount,bind,ro \"$mount\" 2>/dev/null
done < /proc/self/mounts
for place in \"$PROBE\" /tmp /run /var/tmp; do
  if (: > \"$place/written\") 2>/dev/null; then exit 99; fi
done
exec \"$0\" \"$@\"";

/// What the agent may have open for writing: sockets and the kernel's own objects aside, its log.
fn open_for_writing(agent: &Agent) -> Vec<String> {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).expect("the agent lives");
    let mut open = Vec::new();
    for descriptor in descriptors.flatten() {
        let number: u32 = descriptor.file_name().to_string_lossy().parse().expect("a number");
        let info = std::fs::read_to_string(format!("/proc/{}/fdinfo/{number}", agent.pid())).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or("0").trim().to_owned();
        let for_writing = u32::from_str_radix(&flags, 8).expect("octal") & 0o3 != 0;
        let is_file = std::fs::metadata(descriptor.path()).is_ok_and(|file| {
            let kind = file.file_type();
            !kind.is_socket() && !kind.is_fifo() && !kind.is_char_device()
        });
        if for_writing && is_file && number != 2 {
            open.push(std::fs::read_link(descriptor.path()).unwrap_or_default().display().to_string());
        }
    }
    // Objects of the kernel have no path.
    open.retain(|path| !path.starts_with("anon_inode:"));
    open
}

#[test]
fn nothing_is_opened_for_writing() {
    let host = node_with(3);
    let before = files_below(host.root());
    let agent = Agent::start(eager(host.flags(), &["--metrics-profile", "all", "--enable-collectors", "fd"]));
    for _ in 0..3 {
        assert_whole(&agent.page("/metrics"), 3, "while it serves");
        assert_eq!(open_for_writing(&agent), [""; 0]);
    }
    agent.signal(Signal::HUP);
    agent.wait_until("it is reloaded", PATIENCE, || {
        agent.log().iter().any(|line| line.contains("configuration reloaded"))
    });
    assert_whole(&agent.page("/metrics"), 3, "after a reload");
    assert_eq!(open_for_writing(&agent), [""; 0]);
    agent.stop(0);
    assert_eq!(files_below(host.root()), before, "the node is as it was");
}

fn files_below(directory: &std::path::Path) -> Vec<(std::path::PathBuf, std::time::SystemTime)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        let metadata = entry.metadata().expect("a file");
        found.push((entry.path(), metadata.modified().expect("a time")));
        if metadata.is_dir() {
            found.extend(files_below(&entry.path()));
        }
    }
    found.sort();
    found
}

#[test]
fn where_nothing_can_be_written_the_agent_serves() {
    let host = node_with(3);
    let probe = host.root().to_str().expect("a path");
    let launcher = ["unshare", "--mount", "--propagation", "private", "sh", "-c", READ_ONLY];
    let environment = [("PROBE", probe), ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")];
    let agent = Agent::start_by(&launcher, &environment, eager(host.flags(), &[]));
    for _ in 0..3 {
        assert_whole(&agent.page("/metrics"), 3, "on a disk that is read-only");
    }
    agent.signal(Signal::HUP);
    agent.wait_until("it is reloaded", PATIENCE, || {
        agent.log().iter().any(|line| line.contains("configuration reloaded"))
    });
    assert_whole(&agent.page("/metrics"), 3, "after a reload");
    agent.stop(0);
}

/// The log goes to a full disk from the first line on, so the port must be known beforehand.
#[test]
fn a_log_that_cannot_be_written_is_no_reason_to_stop() {
    let host = node_with(3);
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = socket.local_addr().expect("an address");
    drop(socket);
    let mut flags = eager(host.flags(), &["--log-level", "debug", "--listen-address"]);
    flags.push(address.to_string().into());
    let script = "\"$0\" \"$@\" >/dev/full 2>/dev/full & pid=$!; trap 'kill $pid' TERM; \
                  until (: <>/dev/tcp/127.0.0.1/$PORT) 2>/dev/null; do sleep 0.05; done; \
                  echo msg=listening address=127.0.0.1:$PORT >&2; wait $pid; wait $pid; exit $?";
    let port = address.port().to_string();
    let environment = [("PORT", port.as_str()), ("PATH", "/usr/bin:/bin")];
    let agent = Agent::start_by(&["bash", "-c", script], &environment, flags);
    assert_eq!(addresses(&agent), [address]);
    for _ in 0..5 {
        assert_whole(&agent.page("/metrics"), 3, "without a log");
    }
    assert_eq!(agent.get("/none").status, 404);
    agent.stop(0);
}
