//! `vol_data.json`, which the kubelet writes beside the mount of every CSI volume. Pure.
//!
//! ```json
//! {"attachmentID":"csi-8f…","driverName":"ebs.csi.aws.com","nodeName":"n1","specVolID":"pvc-2c…",
//!  "volumeHandle":"vol-0a…","volumeLifecycleMode":"Persistent"}
//! ```
//!
//! It has no claim. Source: Kubernetes `pkg/volume/csi/csi_util.go`; the mode is there since 1.16.

use serde::Deserialize;

/// Largest file taken. Real ones have half a KiB.
pub const MAX_BYTES: u64 = 16 << 10;

/// What such a file says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct VolData {
    /// The persistent volume's name; of a volume described in the pod's specification, its name there.
    #[serde(rename = "specVolID")]
    pub name: String,
    /// The CSI driver.
    #[serde(rename = "driverName")]
    pub driver: String,
    /// What the driver calls the volume.
    #[serde(rename = "volumeHandle")]
    pub handle: String,
    /// `Persistent` or `Ephemeral`.
    #[serde(rename = "volumeLifecycleMode", default)]
    mode: String,
}

impl VolData {
    /// Whether there is a persistent volume, if that is known: a kubelet before 1.16 did not say.
    pub fn is_persistent(&self) -> Option<bool> {
        match self.mode.as_str() {
            "Persistent" => Some(true),
            "Ephemeral" => Some(false),
            _ => None,
        }
    }
}

/// Reads the file; `None` when it is not what the kubelet writes.
pub fn parse(bytes: &[u8]) -> Option<VolData> {
    serde_json::from_slice(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PERSISTENT: &str = r#"{"attachmentID":"csi-1","driverName":"ebs.csi.aws.com","nodeName":"n1",
        "specVolID":"pvc-2c","volumeHandle":"vol-0a","volumeLifecycleMode":"Persistent"}"#;

    #[test]
    fn the_kubelets_file_is_read() {
        let data = parse(PERSISTENT.as_bytes()).unwrap();
        assert_eq!(
            (data.name.as_str(), data.driver.as_str(), data.handle.as_str(), data.is_persistent()),
            ("pvc-2c", "ebs.csi.aws.com", "vol-0a", Some(true))
        );
        let inline = parse(PERSISTENT.replace("Persistent", "Ephemeral").as_bytes()).unwrap();
        assert_eq!(inline.is_persistent(), Some(false));
        let old = parse(br#"{"driverName":"d","specVolID":"v","volumeHandle":"h"}"#).unwrap();
        assert_eq!(old.is_persistent(), None);
    }

    #[test]
    fn anything_else_is_none() {
        for text in ["", "{}", "[]", "null", r#"{"driverName":"d","specVolID":7,"volumeHandle":"h"}"#, &PERSISTENT[1..]]
        {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(parse(&bytes), None);
        }
    }
}
