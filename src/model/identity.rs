//! Who a sample belongs to: ids as types, and the six labels every `container_*` sample carries.

use std::sync::Arc;

/// A pod's uid as the kubelet uses it: an RFC 4122 text, or the 32 hex digits of a static pod's config hash.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodUid(pub Arc<str>);

/// The id of a CRI pod sandbox; for Kata also the name of the sandbox's directory under the runtime's root.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SandboxId(pub Arc<str>);

/// The id of a CRI container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(pub Arc<str>);

/// A cgroup's path below the root of its hierarchy, with a leading slash: `/kubepods/burstable/pod…/…`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CgroupPath(pub Arc<str>);

macro_rules! text_identity {
    ($($name:ident),*) => {$(
        impl $name {
            /// As text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }
        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
        // Lets maps keyed by the identity be asked with a plain string.
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    )*};
}
text_identity!(PodUid, SandboxId, ContainerId, CgroupPath);

/// Longest label value served, in bytes. Kubernetes names end at 253 and image references at 4 KiB; a longer value
/// can only be an accident or an attack on the monitoring system, and is cut at a character boundary.
pub const MAX_LABEL_BYTES: usize = 4096;

/// The six identity labels of a `container_*` sample, sorted by name; blank when unknown.
///
/// A blank label is not a missing one: under `honorLabels` a missing `container` would take the scrape target's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// Name of the container in its pod; blank on sandbox, pod and group rows.
    pub container: String,
    /// Cgroup path.
    pub id: String,
    /// Image reference.
    pub image: String,
    /// Name in the runtime: the container id with containerd, `k8s_…` with CRI-O and Docker.
    pub name: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Pod name.
    pub pod: String,
}

impl Labels {
    /// Names of the six, in the order of [`Labels::values`].
    pub const NAMES: [&'static str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

    /// The values in the order of [`Labels::NAMES`].
    pub fn values(&self) -> [&str; 6] {
        let Self { container, id, image, name, namespace, pod } = self;
        [container, id, image, name, namespace, pod]
    }
}

/// [`Labels`] written once in exposition syntax, because they never change while a container lives and make up
/// nine tenths of every sample's text.
///
/// `text` is `container="…",id="…",image="…",name="…",namespace="…",pod="…"` without braces; `ends[i]` is where the
/// i-th label ends, so that an extra label can be put in where the sorted order wants it without writing the rest again.
#[derive(Clone, Debug)]
pub struct LabelBlock {
    /// The escaped labels.
    pub text: Box<str>,
    /// Byte offset just after each label's closing quote.
    pub ends: [usize; 6],
}

impl LabelBlock {
    /// Writes the block.
    pub fn render(labels: &Labels) -> Self {
        let mut text = String::new();
        let mut ends = [0; 6];
        for ((name, value), end) in Labels::NAMES.iter().zip(labels.values()).zip(&mut ends) {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(name);
            text.push_str("=\"");
            escape_label_value(bounded(value), &mut text);
            text.push('"');
            *end = text.len();
        }
        Self { text: text.into(), ends }
    }
}

/// Appends `value` with backslash, double quote and line feed escaped, as both text formats ask.
pub fn escape_label_value(value: &str, out: &mut String) {
    let mut rest = value;
    while let Some(at) = memchr::memchr3(b'\\', b'"', b'\n', rest.as_bytes()) {
        // These three are characters of their own wherever they stand.
        let (plain, special) = rest.split_at(at);
        out.push_str(plain);
        out.push_str(match special.as_bytes() {
            [b'\\', ..] => "\\\\",
            [b'"', ..] => "\\\"",
            _ => "\\n",
        });
        rest = special.get(1..).unwrap_or_default();
    }
    out.push_str(rest);
}

/// The value cut to [`MAX_LABEL_BYTES`].
pub fn bounded(value: &str) -> &str {
    &value[..value.floor_char_boundary(MAX_LABEL_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_is_escaped_and_knows_where_each_label_ends() {
        let labels = Labels { container: "a\"b".into(), id: "/x\\y".into(), pod: "p\nq".into(), ..Labels::default() };
        let block = LabelBlock::render(&labels);
        assert_eq!(&*block.text, r#"container="a\"b",id="/x\\y",image="",name="",namespace="",pod="p\nq""#);
        assert_eq!(&block.text[..block.ends[0]], r#"container="a\"b""#);
        assert_eq!(block.ends[5], block.text.len());
    }

    #[test]
    fn overlong_values_are_cut_at_a_character() {
        let long = "é".repeat(MAX_LABEL_BYTES);
        assert_eq!(bounded(&long).len(), MAX_LABEL_BYTES);
        assert_eq!(bounded("short"), "short");
    }
}
