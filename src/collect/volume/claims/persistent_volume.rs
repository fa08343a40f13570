//! A PersistentVolume as the API server tells it. Pure.

use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::HashMap;

/// What a persistent volume is made of, as the node sees it: a volume that a pod's specification describes itself may
/// have the name of a persistent volume.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// By a CSI driver, which calls it by this handle.
    Csi {
        /// The driver's name.
        driver: String,
        /// The volume's name there.
        handle: String,
    },
    /// A device by a CSI driver: these are never described by a pod.
    CsiDevice,
    /// By a plugin of the kubelet's own, under this key of the specification.
    InTree(&'static str),
}

/// Not a persistent volume of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonsense;

#[derive(Deserialize)]
struct PersistentVolume {
    kind: String,
    metadata: Metadata,
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    claim_ref: Option<ClaimRef>,
    csi: Option<Csi>,
    #[serde(flatten)]
    others: HashMap<String, IgnoredAny>,
}

#[derive(Deserialize)]
struct ClaimRef {
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Csi {
    driver: String,
    volume_handle: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: String,
}

/// The claim in this namespace that the volume of this name is bound to; `None` when it is bound to none there, or is
/// made of something else.
pub fn claim(answer: &[u8], name: &str, namespace: &str, source: &Source) -> Result<Option<String>, Nonsense> {
    let volume: PersistentVolume = serde_json::from_slice(answer).map_err(|_| Nonsense)?;
    if volume.kind != "PersistentVolume" || volume.metadata.name != name {
        return Err(Nonsense);
    }
    let same = match (source, &volume.spec.csi) {
        (Source::Csi { driver, handle }, Some(csi)) => csi.driver == *driver && csi.volume_handle == *handle,
        (Source::CsiDevice, Some(_)) => true,
        (Source::InTree(key), None) => volume.spec.others.contains_key(*key),
        _ => false,
    };
    let bound = volume.status.phase == "Bound";
    let claim = volume.spec.claim_ref.filter(|claim| claim.namespace == namespace && !claim.name.is_empty());
    Ok(claim.filter(|_| same && bound).map(|claim| claim.name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn volume() -> Value {
        json!({ "kind": "PersistentVolume", "apiVersion": "v1", "metadata": { "name": "pvc-2c", "uid": "u" },
            "spec": { "capacity": { "storage": "1Gi" }, "csi": { "driver": "d", "volumeHandle": "h", "fsType": "ext4" },
                "claimRef": { "kind": "PersistentVolumeClaim", "namespace": "shop", "name": "data-db-0" } },
            "status": { "phase": "Bound" } })
    }

    fn csi() -> Source {
        Source::Csi { driver: "d".to_owned(), handle: "h".to_owned() }
    }

    fn of(volume: &Value, source: &Source) -> Result<Option<String>, Nonsense> {
        claim(volume.to_string().as_bytes(), "pvc-2c", "shop", source)
    }

    #[test]
    fn a_bound_volume_names_its_claim() {
        let data = Ok(Some("data-db-0".to_owned()));
        assert_eq!(of(&volume(), &csi()), data);
        assert_eq!(of(&volume(), &Source::CsiDevice), data);
        let mut nfs = volume();
        nfs["spec"]["nfs"] = nfs["spec"].as_object_mut().unwrap().remove("csi").unwrap();
        assert_eq!(of(&nfs, &Source::InTree("nfs")), data);
    }

    #[test]
    fn another_volume_of_that_name_names_none() {
        let changed = |pointer: &str, value: Value| {
            let mut volume = volume();
            *volume.pointer_mut(pointer).unwrap() = value;
            of(&volume, &csi())
        };
        assert_eq!(changed("/spec/csi/driver", json!("e")), Ok(None));
        assert_eq!(changed("/spec/csi/volumeHandle", json!("i")), Ok(None));
        assert_eq!(changed("/spec/claimRef/namespace", json!("bank")), Ok(None));
        assert_eq!(changed("/spec/claimRef", Value::Null), Ok(None));
        assert_eq!(changed("/status/phase", json!("Released")), Ok(None));
        assert_eq!(of(&volume(), &Source::InTree("nfs")), Ok(None));
        for pointer in ["/kind", "/metadata/name", "/spec"] {
            assert_eq!(changed(pointer, json!("Status")), Err(Nonsense), "{pointer}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(claim(&bytes, "pvc-2c", "shop", &csi()), Err(Nonsense));
        }
    }
}
