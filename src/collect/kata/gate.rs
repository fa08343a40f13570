//! What may be asked of a shim. Pure.
//!
//! `GET /metrics` makes a runtime-rs shim ask its hypervisor's driver for metrics. Where the driver has none written,
//! the shim aborts and takes the machine with it (all releases to 4.1.0, QEMU and Firecracker). So it is asked only of a
//! shim whose hypervisor is positively known to live through it. `GET /agent-url` formats a string and is safe on all.
//!
//! | runtime | agent URL | hypervisor | `/metrics` |
//! |---|---|---|---|
//! | Go | any | any | safe |
//! | rs | `hvsock://…/ch-vm.sock:1024` | Cloud Hypervisor | safe from 3.3.0 |
//! | rs | `hvsock://…/<sandbox>/root/kata.hvsock:1024`, and the sandbox's directory has `root/` | Dragonball | safe |
//! | rs | `hvsock://…/vsock.sock:1024` | OpenVMM | safe |
//! | rs | `remote://…` | elsewhere | safe from 4.1.0, and nothing tells the version |
//! | rs | `vsock://<cid>:1024` | QEMU | fatal |
//! | rs | `hvsock://…/kata.hvsock:1024` otherwise | Firecracker | fatal |
//! | rs | empty, anything else, or at odds with the state file | unknown | not asked |

use crate::model::guest::Hypervisor;
use crate::model::inventory::KataRuntime;

/// What the operator lets us ask, `--shim-scrape`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ShimScrape {
    /// Nothing.
    Off,
    /// Shims known to survive it.
    #[default]
    Safe,
    /// Also those that released versions do not survive: the operator knows that theirs does. Where nothing at all is
    /// known, still nothing is asked.
    All,
}

/// What is known about one sandbox's shim.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Which implementation it is.
    pub runtime: KataRuntime,
    /// The sandbox's id.
    pub sandbox: &'a str,
    /// What `GET /agent-url` answered; blank when it was not asked or said nothing.
    pub agent_url: &'a str,
    /// `hypervisor.hypervisor_type` of the sandbox's state file, where there is one.
    pub hypervisor_type: Option<&'a str>,
    /// The sandbox's directory has a directory `root`.
    pub has_root: bool,
}

/// Whether a shim survives `GET /metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Safe,
    /// It is not known to, or known not to.
    Unsafe(Reason),
    /// It cannot be told what is behind it.
    Unknown,
}

/// Why a shim is not safe to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// runtime-rs with QEMU aborts.
    Qemu,
    /// runtime-rs with Firecracker aborts.
    Firecracker,
    /// runtime-rs with a remote hypervisor is not known to be safe before 4.1.0.
    Remote,
}

impl Reason {
    /// Label value of the sandboxes that are skipped for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Qemu => "unsafe_qemu",
            Self::Firecracker => "unsafe_firecracker",
            Self::Remote => "unsafe_remote",
        }
    }
}

/// Leave to send `GET /metrics` to the shim it was given for. Only [`Verdict::permit`] makes one.
#[derive(Debug, PartialEq, Eq)]
pub struct Permit(());

impl Verdict {
    /// Judges a shim.
    pub fn of(facts: &Facts<'_>) -> Self {
        if facts.runtime == KataRuntime::Go {
            return Self::Safe;
        }
        let Some(hypervisor) = hypervisor(facts) else { return Self::Unknown };
        if facts.hypervisor_type.is_some_and(|name| Hypervisor::from_kata_name(name) != Some(hypervisor)) {
            return Self::Unknown;
        }
        match hypervisor {
            Hypervisor::CloudHypervisor | Hypervisor::Dragonball | Hypervisor::OpenVmm => Self::Safe,
            Hypervisor::Qemu => Self::Unsafe(Reason::Qemu),
            Hypervisor::Firecracker => Self::Unsafe(Reason::Firecracker),
            Hypervisor::Remote => Self::Unsafe(Reason::Remote),
            Hypervisor::Stratovirt => Self::Unknown,
        }
    }

    /// Leave to ask, if the operator's choice covers this verdict.
    pub fn permit(self, mode: ShimScrape) -> Option<Permit> {
        let granted = match (mode, self) {
            (ShimScrape::Off, _) | (_, Self::Unknown) | (ShimScrape::Safe, Self::Unsafe(_)) => false,
            (ShimScrape::Safe | ShimScrape::All, Self::Safe) | (ShimScrape::All, Self::Unsafe(_)) => true,
        };
        granted.then_some(Permit(()))
    }
}

/// The hypervisor behind a runtime-rs shim, by its agent URL.
pub fn hypervisor(facts: &Facts<'_>) -> Option<Hypervisor> {
    let (scheme, address) = facts.agent_url.trim().split_once("://")?;
    match scheme {
        "remote" => (!address.is_empty()).then_some(Hypervisor::Remote),
        "vsock" => {
            let cid = without_port(address)?;
            is_number(cid).then_some(Hypervisor::Qemu)
        }
        "hvsock" => {
            let path = without_port(address)?;
            let (dir, socket) = path.rsplit_once('/')?;
            match socket {
                "ch-vm.sock" => Some(Hypervisor::CloudHypervisor),
                "vsock.sock" => Some(Hypervisor::OpenVmm),
                // A jailed Firecracker's socket ends alike: `/run/kata/firecracker/<sandbox>/root/kata.hvsock`.
                "kata.hvsock" if facts.has_root && is_root_of(dir, facts.sandbox) => Some(Hypervisor::Dragonball),
                "kata.hvsock" => Some(Hypervisor::Firecracker),
                _ => None,
            }
        }
        _ => None,
    }
}

fn without_port(address: &str) -> Option<&str> {
    let (rest, port) = address.rsplit_once(':')?;
    is_number(port).then_some(rest)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `…/kata/<sandbox>/root`
fn is_root_of(dir: &str, sandbox: &str) -> bool {
    let mut parts = dir.rsplit('/');
    let own = parts.next() == Some("root") && parts.next() == Some(sandbox) && !sandbox.is_empty();
    own && parts.next() == Some("kata")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "760e7a6493d4f0add8a217d0f6a019cc288419dd8f375035586436c4c816d236";

    fn facts<'a>(agent_url: &'a str, hypervisor_type: Option<&'a str>, has_root: bool) -> Facts<'a> {
        Facts { runtime: KataRuntime::Rs, sandbox: ID, agent_url, hypervisor_type, has_root }
    }

    #[test]
    fn every_row_of_the_table() {
        use Verdict::{Safe, Unknown, Unsafe};
        let rows: &[(&str, Option<&str>, bool, Verdict)] = &[
            // Cloud Hypervisor, which makes `root` for virtiofsd.
            ("hvsock:///run/kata/{id}/ch-vm.sock:1024", Some("clh"), true, Safe),
            ("hvsock:///run/kata/{id}/ch-vm.sock:1024", None, false, Safe),
            ("hvsock:///run/user/1000/run/kata/{id}/ch-vm.sock:1024", Some("clh"), true, Safe),
            ("hvsock:///run/kata/{id}/ch-vm.sock:1024\n", Some("clh"), true, Safe),
            // Dragonball.
            ("hvsock:///run/kata/{id}/root/kata.hvsock:1024", Some("dragonball"), true, Safe),
            ("hvsock:///run/kata/{id}/root/kata.hvsock:1024", None, true, Safe),
            ("hvsock:///run/kata/{id}/root/kata.hvsock:1024", None, false, Unsafe(Reason::Firecracker)),
            ("hvsock:///run/kata/{id}/root/kata.hvsock:1024", Some("dragonball"), false, Unknown),
            ("hvsock:///run/kata/{id}/root/kata.hvsock:1024", Some("firecracker"), true, Unknown),
            // OpenVMM.
            ("hvsock:///run/kata/{id}/vsock.sock:1024", Some("openvmm"), false, Safe),
            ("hvsock:///run/kata/{id}/vsock.sock:1024", None, true, Safe),
            // Elsewhere.
            ("remote:///run/peerpod/pods/{id}/agent.ttrpc", Some("remote"), false, Unsafe(Reason::Remote)),
            ("remote:///run/peerpod/pods/{id}/agent.ttrpc:1024", None, false, Unsafe(Reason::Remote)),
            ("remote://", None, false, Unknown),
            // QEMU.
            ("vsock://3506352936:1024", Some("qemu"), true, Unsafe(Reason::Qemu)),
            ("vsock://3506352936:1024", None, true, Unsafe(Reason::Qemu)),
            ("vsock://3506352936:1024", None, false, Unsafe(Reason::Qemu)),
            // Firecracker, free and jailed; the latter's state file lies elsewhere.
            ("hvsock:///run/kata/{id}/kata.hvsock:1024", Some("firecracker"), false, Unsafe(Reason::Firecracker)),
            ("hvsock:///run/kata/{id}/kata.hvsock:1024", None, true, Unsafe(Reason::Firecracker)),
            ("hvsock:///run/kata/firecracker/{id}/root/kata.hvsock:1024", None, true, Unsafe(Reason::Firecracker)),
            ("hvsock:///run/kata/firecracker/{id}/root/kata.hvsock:1024", None, false, Unsafe(Reason::Firecracker)),
            ("hvsock:///run/kata/other/root/kata.hvsock:1024", None, true, Unsafe(Reason::Firecracker)),
            ("hvsock:///root/kata.hvsock:1024", None, true, Unsafe(Reason::Firecracker)),
            // Nothing, or nothing known.
            ("", None, false, Unknown),
            ("", Some("clh"), true, Unknown),
            ("unix:///run/kata/{id}/ch-vm.sock:1024", Some("clh"), true, Unknown),
            ("hvsock:///run/kata/{id}/clh.sock:1024", Some("clh"), true, Unknown),
            ("hvsock:///run/kata/{id}/ch-vm.sock", Some("clh"), true, Unknown),
            ("hvsock:///run/kata/{id}/ch-vm.sock:", Some("clh"), true, Unknown),
            ("hvsock:///run/kata/{id}/ch-vm.sock:x", Some("clh"), true, Unknown),
            ("hvsock://ch-vm.sock:1024", Some("clh"), true, Unknown),
            ("hvsock:///run/kata/{id}/not-ch-vm.sock:1024", None, true, Unknown),
            ("vsock://:1024", None, false, Unknown),
            ("vsock://any:1024", None, false, Unknown),
            ("hvsock", None, false, Unknown),
            // URL and state file at odds: neither is believed.
            ("hvsock:///run/kata/{id}/ch-vm.sock:1024", Some("qemu"), true, Unknown),
            ("hvsock:///run/kata/{id}/ch-vm.sock:1024", Some("brand-new"), true, Unknown),
            ("hvsock:///run/kata/{id}/ch-vm.sock:1024", Some(""), true, Unknown),
            ("hvsock:///run/kata/{id}/vsock.sock:1024", Some("firecracker"), true, Unknown),
            ("vsock://3506352936:1024", Some("clh"), true, Unknown),
        ];
        for (url, state, root, verdict) in rows {
            let url = url.replace("{id}", ID);
            assert_eq!(Verdict::of(&facts(&url, *state, *root)), *verdict, "{url:?} {state:?} {root}");
        }
    }

    #[test]
    fn a_go_shim_is_safe_whatever_is_behind_it() {
        for url in ["", "vsock://830455376:1024", "hvsock:///run/vc/vm/x/clh.sock:1024", "remote:///x", "?"] {
            for state in [None, Some("qemu"), Some("firecracker"), Some("remote")] {
                let facts = Facts { runtime: KataRuntime::Go, ..facts(url, state, false) };
                assert_eq!(Verdict::of(&facts), Verdict::Safe, "{url}");
            }
        }
    }

    #[test]
    fn a_blank_id_is_nobodys_root() {
        let facts = Facts { sandbox: "", ..facts("hvsock:///run/kata//root/kata.hvsock:1024", None, true) };
        assert_eq!(Verdict::of(&facts), Verdict::Unsafe(Reason::Firecracker));
    }

    #[test]
    fn a_permit_takes_the_operators_leave_and_some_knowledge() {
        let fatal = Verdict::Unsafe(Reason::Qemu);
        for (mode, verdict, granted) in [
            (ShimScrape::Off, Verdict::Safe, false),
            (ShimScrape::Off, fatal, false),
            (ShimScrape::Off, Verdict::Unknown, false),
            (ShimScrape::Safe, Verdict::Safe, true),
            (ShimScrape::Safe, fatal, false),
            (ShimScrape::Safe, Verdict::Unknown, false),
            (ShimScrape::All, Verdict::Safe, true),
            (ShimScrape::All, fatal, true),
            (ShimScrape::All, Verdict::Unknown, false),
        ] {
            assert_eq!(verdict.permit(mode).is_some(), granted, "{mode:?} {verdict:?}");
        }
    }

    proptest::proptest! {
        /// Whatever a URL says, only the three hypervisors that survive it are ever asked by default.
        #[test]
        fn no_other_url_is_safe(url in ".*", root in proptest::bool::ANY) {
            let facts = facts(&url, None, root);
            if Verdict::of(&facts) == Verdict::Safe {
                proptest::prop_assert!(url.trim().starts_with("hvsock://"));
            }
        }
    }
}
