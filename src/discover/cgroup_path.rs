//! What a cgroup's name says: pod uid and container id, for every driver and runtime. Pure.
//!
//! ```text
//! cgroupfs  /kubepods/burstable/pod<uid>/<id>                                     CRI-O: crio-<id>
//! systemd   /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid with _ for ->.slice/
//!             cri-containerd-<id>.scope | crio-<id>.scope | docker-<id>.scope | libpod-<id>.scope
//! ```
//! Guaranteed pods lack the QoS level. Nodes nested in a container, renamed roots and kind's extra level put something
//! in front, so names are told apart by their own form and their parent's, never by where the tree begins.

use crate::model::identity::{ContainerId, PodUid};

/// What a directory below another is, as far as its name tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// The `kubepods` root.
    Kubepods,
    /// A QoS class below it.
    Qos,
    /// A pod.
    Pod(PodUid),
    /// Something inside a pod.
    Leaf(Leaf),
    /// A container's name outside of any pod: proof of nothing unless the runtime knows the id. It may be a node
    /// nested in a container, with pods of its own below.
    Stray(ContainerId),
    /// Anything else.
    Other,
}

/// A cgroup below a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// A container or a pod sandbox.
    Container {
        /// Its id in the runtime.
        id: ContainerId,
    },
    /// A Kata sandbox, marked as such by its name: `kata_<id>`.
    Kata {
        /// The sandbox's id.
        id: ContainerId,
    },
    /// No container: a monitor process, a mount unit, something inside a container.
    Other,
}

/// Classifies `name`, a directory whose parent is `parent`.
pub fn classify(parent: &Class, name: &str) -> Class {
    match parent {
        Class::Pod(_) => Class::Leaf(leaf(name)),
        Class::Leaf(_) => Class::Leaf(Leaf::Other),
        Class::Kubepods | Class::Qos | Class::Stray(_) | Class::Other => group(parent, name),
    }
}

fn group(parent: &Class, name: &str) -> Class {
    if let Some(stem) = name.strip_suffix(".slice") {
        // `kubepods`, `kubepods-burstable` and `kubepods-burstable-pod<uid_>`, any of them after a prefix of their
        // ancestors' names: systemd slices spell out the whole path.
        if let Some((before, uid)) = stem.rsplit_once("-pod")
            && is_kubepods_stem(before)
            && let Some(uid) = pod_uid(&uid.replace('_', "-"))
        {
            return Class::Pod(uid);
        }
        return match stem.strip_suffix("-burstable").or_else(|| stem.strip_suffix("-besteffort")) {
            Some(before) if is_named_kubepods(before) => Class::Qos,
            _ if is_named_kubepods(stem) => Class::Kubepods,
            _ => Class::Other,
        };
    }
    match (parent, name) {
        (Class::Kubepods | Class::Qos, name) if name.starts_with("pod") => {
            pod_uid(&name["pod".len()..]).map_or(Class::Other, Class::Pod)
        }
        (Class::Kubepods, "burstable" | "besteffort") => Class::Qos,
        (_, "kubepods") => Class::Kubepods,
        _ => match leaf(name) {
            Leaf::Container { id } => Class::Stray(id),
            _ => Class::Other,
        },
    }
}

fn is_kubepods_stem(stem: &str) -> bool {
    let stem = stem.strip_suffix("-burstable").or_else(|| stem.strip_suffix("-besteffort")).unwrap_or(stem);
    is_named_kubepods(stem)
}

fn is_named_kubepods(stem: &str) -> bool {
    stem == "kubepods" || stem.ends_with("-kubepods")
}

/// A pod uid: letters, digits and dashes, as the API server and the kubelet make them.
fn pod_uid(text: &str) -> Option<PodUid> {
    let plausible =
        !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    plausible.then(|| PodUid::from(text))
}

/// Names in front of the id: of containerd, CRI-O, Docker and Podman under the systemd driver, CRI-O under cgroupfs.
const PREFIXES: [&str; 4] = ["cri-containerd-", "crio-", "docker-", "libpod-"];

fn leaf(name: &str) -> Leaf {
    let stem = name.strip_suffix(".scope").unwrap_or(name);
    if let Some(id) = stem.strip_prefix("kata_").filter(|id| is_container_id(id)) {
        return Leaf::Kata { id: id.into() };
    }
    let id = PREFIXES.iter().find_map(|prefix| stem.strip_prefix(prefix)).unwrap_or(stem);
    if is_container_id(id) { Leaf::Container { id: id.into() } } else { Leaf::Other }
}

/// 64 lower-case hex digits: what every CRI runtime uses.
pub fn is_container_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// How the runtime (`containerd`, `cri-o`, `docker`) would have named the cgroup of container `id` in the cgroup of
/// `pod`: the driver is told by the pod's own name.
pub fn below_pod(pod: &str, runtime: Option<&str>, id: &str) -> String {
    let systemd = pod.ends_with(".slice");
    let (prefix, suffix) = match (runtime.unwrap_or_default(), systemd) {
        ("cri-o", true) => ("crio-", ".scope"),
        ("cri-o", false) => ("crio-", ""),
        ("docker", true) => ("docker-", ".scope"),
        (_, true) => ("cri-containerd-", ".scope"),
        (_, false) => ("", ""),
    };
    format!("{pod}/{prefix}{id}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "07bd11a0-13df-4e5a-8b10-a37eb8e32d2c";

    /// Classes of every component of a path, from the root down.
    fn last(path: &str) -> Class {
        path.split('/').filter(|name| !name.is_empty()).fold(Class::Other, |parent, name| classify(&parent, name))
    }

    fn container() -> Class {
        Class::Leaf(Leaf::Container { id: ID.into() })
    }

    #[test]
    fn every_driver_and_runtime_is_understood() {
        let under = UID.replace('-', "_");
        for pod in [
            format!("/kubepods/pod{UID}"),
            format!("/kubepods/burstable/pod{UID}"),
            format!("/kubepods/besteffort/pod{UID}"),
            format!("/kubepods.slice/kubepods-pod{under}.slice"),
            format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice"),
            format!("/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{under}.slice"),
            format!("/docker/{ID}/kubepods/burstable/pod{UID}"),
            format!("/docker/{ID}/kubelet/kubepods/burstable/pod{UID}"),
            format!("/system.slice/docker-{ID}.scope/kubepods.slice/kubepods-pod{under}.slice"),
            format!(
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{under}.slice"
            ),
            format!("/custom/root/kubepods/pod{UID}"),
        ] {
            assert_eq!(last(&pod), Class::Pod(UID.into()), "{pod}");
            for leaf in ["cri-containerd-", "crio-", "docker-", "libpod-"] {
                assert_eq!(last(&format!("{pod}/{leaf}{ID}.scope")), container(), "{pod}/{leaf}");
            }
            assert_eq!(last(&format!("{pod}/{ID}")), container());
            assert_eq!(last(&format!("{pod}/crio-{ID}")), container());
            assert_eq!(last(&format!("{pod}/kata_{ID}")), Class::Leaf(Leaf::Kata { id: ID.into() }));
            assert_eq!(last(&format!("{pod}/{ID}/{ID}")), Class::Leaf(Leaf::Other), "inside a container");
            for other in [format!("crio-conmon-{ID}.scope"), format!("x-{ID}.mount"), "tasks".to_owned()] {
                assert_eq!(last(&format!("{pod}/{other}")), Class::Leaf(Leaf::Other), "{other}");
            }
        }
    }

    #[test]
    fn static_pods_have_a_hash_for_a_uid() {
        let uid = "07bd11a0a13dfe5450a17a39eb8e32d2";
        assert_eq!(last(&format!("/kubepods/burstable/pod{uid}")), Class::Pod(uid.into()));
        let path = format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice");
        assert_eq!(last(&path), Class::Pod(uid.into()));
    }

    #[test]
    fn groups_are_told_from_everything_else() {
        for kubepods in ["/kubepods", "/kubepods.slice", "/kubelet.slice/kubelet-kubepods.slice", "/a/b/kubepods"] {
            assert_eq!(last(kubepods), Class::Kubepods, "{kubepods}");
        }
        for qos in ["/kubepods/burstable", "/kubepods.slice/kubepods-besteffort.slice"] {
            assert_eq!(last(qos), Class::Qos, "{qos}");
        }
        for other in
            ["/", "/system.slice", "/burstable", "/podx", "/kubepods/other", "/kubepods/pod", "/notkubepods.slice"]
        {
            assert_eq!(last(other), Class::Other, "{other}");
        }
        assert_eq!(last(&format!("/k8s.io/{ID}")), Class::Stray(ID.into()), "CRI decides whether it is one");
    }

    #[test]
    fn containers_of_guests_are_named_as_if_they_were_here() {
        let slice = "/kubepods.slice/kubepods-podu1.slice";
        for (pod, runtime, leaf) in [
            (slice, "containerd", format!("cri-containerd-{ID}.scope")),
            (slice, "cri-o", format!("crio-{ID}.scope")),
            ("/kubepods/podu1", "containerd", ID.to_owned()),
            ("/kubepods/podu1", "cri-o", format!("crio-{ID}")),
        ] {
            let path = below_pod(pod, Some(runtime), ID);
            assert_eq!(path, format!("{pod}/{leaf}"));
            assert_eq!(last(&path), container(), "and the name reads back");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_name_is_classified(name in ".*", parent in ".*") {
            let parent = classify(&Class::Kubepods, &parent);
            let _ = classify(&parent, &name);
        }
    }
}
