//! The manual page: name, synopsis and options as the command line defines them, and around them what only words can
//! tell.

use std::io;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, line_break, roman};

/// A term and what it means.
type Entry = (&'static str, &'static str);

const FILES: &[Entry] = &[
    ("/etc/default/kata-pulse", "Arguments and environment of the systemd service."),
    (
        "/run/containerd/containerd.sock, /run/k3s/containerd/containerd.sock, /run/crio/crio.sock, /run/cri-dockerd.sock",
        "Sockets of container runtimes, tried in this order unless --runtime-endpoint says which.",
    ),
    ("/run/vc/sbs, /run/kata", "Where the shims of Kata Containers keep one directory per sandbox; both are watched."),
    ("/proc, /sys/fs/cgroup", "Processes and cgroups of the node. Nothing is ever written there."),
];

const SIGNALS: &[Entry] = &[
    (
        "SIGHUP",
        "Read the file of --config again. A bad file is reported and changes nothing. A changed listen-address needs a restart.",
    ),
    ("SIGTERM, SIGINT", "Stop accepting requests, finish those in flight within five seconds, and end with status 0."),
];

const EXIT_STATUS: &[Entry] = &[
    ("0", "A clean end; the command did its work."),
    (
        "1",
        "Something failed at run time: an address cannot be listened on; a source failed (collect); the agent does not answer (healthcheck).",
    ),
    ("2", "The command line or the configuration is wrong. One line on standard error says what."),
];

const SERVICE_ENVIRONMENT: &[Entry] = &[
    ("NOTIFY_SOCKET", "Set by systemd: the agent tells it when it serves, reloads and stops, and what is missing."),
    (
        "WATCHDOG_USEC, WATCHDOG_PID",
        "Set by systemd: the agent says that it is alive at half this interval, unless a collection has been stuck for two minutes.",
    ),
];

const SEE_ALSO: &str = "systemctl(1), journalctl(1), prometheus(1), runc(8), cgroups(7), proc(5)";

/// The page in roff, of this day: `2026-11-28`.
///
/// The commands are told of here and have no pages of their own: they are few and have one option between them.
pub fn page(command: Command, day: &str) -> io::Result<Vec<u8>> {
    let man =
        Man::new(command.clone().disable_help_subcommand(true)).date(day).section("8").manual("System Administration");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let mut rest = Roff::new();
    commands(&mut rest, &command);
    section(&mut rest, "FILES", FILES);
    section(&mut rest, "SIGNALS", SIGNALS);
    section(&mut rest, "EXIT STATUS", EXIT_STATUS);
    environment(&mut rest, &command);
    rest.control("SH", ["SEE ALSO"]).text([roman(SEE_ALSO)]);
    rest.to_writer(&mut page)?;
    Ok(page)
}

fn entry(roff: &mut Roff, term: &str, meaning: &str) {
    roff.control("TP", []).text([bold(term)]).text([roman(meaning)]);
}

fn section(roff: &mut Roff, title: &str, entries: &[Entry]) {
    roff.control("SH", [title]);
    for (term, meaning) in entries {
        entry(roff, term, meaning);
    }
}

fn commands(roff: &mut Roff, command: &Command) {
    roff.control("SH", ["COMMANDS"]).text([roman("Without a command the agent serves until a signal ends it.")]);
    for command in command.get_subcommands() {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        roff.control("TP", []).text([bold(command.get_name())]).text([roman(format!("{about}."))]);
        for option in command.get_opts().filter(|option| !option.is_global_set()) {
            let values: Vec<String> =
                option.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
            let name = format!("--{}", option.get_long().unwrap_or_default());
            roff.text([line_break(), bold(name), roman(" "), italic(values.join("|"))]);
        }
    }
}

/// Every option that is a variable too, in the order of the options.
fn environment(roff: &mut Roff, command: &Command) {
    roff.control("SH", ["ENVIRONMENT"])
        .text([roman("An option on the command line wins over its variable, and the variable over the file.")]);
    for option in command.get_opts() {
        if let (Some(variable), Some(long)) = (option.get_env(), option.get_long()) {
            entry(roff, &variable.to_string_lossy(), &format!("The same as --{long}."));
        }
    }
    for (term, meaning) in SERVICE_ENVIRONMENT {
        entry(roff, term, meaning);
    }
}
