//! Kernel, host name and distribution.

use std::path::Path;

use crate::collect::Roots;
use crate::model::node::Uname;

/// Keys of `os-release` that are labels of `node_os_info`, sorted.
pub(super) const OS_KEYS: [&str; 12] = [
    "build_id",
    "id",
    "id_like",
    "image_id",
    "image_version",
    "name",
    "pretty_name",
    "variant",
    "variant_id",
    "version",
    "version_codename",
    "version_id",
];

/// The distribution, from the file that node_exporter reads as well.
pub(super) fn release(host: &Path) -> Vec<(&'static str, String)> {
    let text = ["etc/os-release", "usr/lib/os-release"].iter().find_map(|path| std::fs::read(host.join(path)).ok());
    text.map(|text| parse(&String::from_utf8_lossy(&text))).unwrap_or_default()
}

/// `KEY="value"` lines of a shell, without its expansions.
fn parse(text: &str) -> Vec<(&'static str, String)> {
    let mut values = [const { String::new() }; OS_KEYS.len()];
    for line in text.lines() {
        let Some((key, value)) = line.trim().split_once('=') else { continue };
        if let Some(at) = OS_KEYS.iter().position(|known| known.eq_ignore_ascii_case(key)) {
            values[at] = unquoted(value);
        }
    }
    OS_KEYS.into_iter().zip(values).collect()
}

fn unquoted(value: &str) -> String {
    let inner = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
    let mut plain = String::new();
    let mut escaped = false;
    for character in inner.unwrap_or(value).chars() {
        escaped = character == '\\' && !escaped;
        if !escaped {
            plain.push(character);
        }
    }
    plain
}

/// Kernel and host name. A container has a host name of its own, so below another root the node's is read from its file.
pub(super) fn uname(roots: &Roots) -> Uname {
    let own = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let sysctl = |name: &str| {
        let content = std::fs::read_to_string(roots.proc.join("sys/kernel").join(name)).ok()?;
        Some(content.trim_ascii_end().to_owned())
    };
    let hostname = || {
        let content = std::fs::read_to_string(roots.host.join("etc/hostname")).ok()?;
        Some(content.trim_ascii().to_owned()).filter(|name| !name.is_empty())
    };
    let nodename = if roots.host == Path::new("/") { None } else { hostname() };
    let values = [
        sysctl("domainname").unwrap_or_else(|| text(own.domainname())),
        text(own.machine()),
        nodename.or_else(|| sysctl("hostname")).unwrap_or_else(|| text(own.nodename())),
        sysctl("osrelease").unwrap_or_else(|| text(own.release())),
        sysctl("ostype").unwrap_or_else(|| text(own.sysname())),
        sysctl("version").unwrap_or_else(|| text(own.version())),
    ];
    Uname { values }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shells_quotes_are_taken_off() {
        let parsed =
            parse("NAME=\"Debian \\\"GNU\\\"/Linux\"\nID=debian\nVERSION='12 (bookworm)'\n# x\nHOME_URL=\"x\"\n");
        let of = |name: &str| parsed.iter().find(|(key, _)| *key == name).unwrap().1.as_str();
        assert_eq!((of("name"), of("id"), of("version")), ("Debian \"GNU\"/Linux", "debian", "12 (bookworm)"));
        assert_eq!(of("variant"), "");
        assert_eq!(parsed.len(), OS_KEYS.len());
    }
}
