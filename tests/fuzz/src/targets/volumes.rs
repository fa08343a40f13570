//! What the kubelet, the kernel and the API server say of volumes.

use std::path::{Component, Path};

use kata_pulse::collect::mount_table;
use kata_pulse::collect::volume::claims::{Source, claim};
use kata_pulse::collect::volume::table::{self, Form, Place};
use kata_pulse::collect::volume::vol_data;
use serde_json::Value;

use crate::memory::within;

const KUBELET: &str = "/var/lib/kubelet";

/// `vol_data.json`, persistent volumes, mount tables, `/proc/partitions`.
pub fn volumes(bytes: &[u8]) {
    // The general reader refuses texts that are of no interest to ours.
    let document = serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    files_of_the_kubelet(bytes, &document);
    persistent_volumes(bytes, &document);
    mounts(bytes);
    partitions(bytes);
}

fn files_of_the_kubelet(bytes: &[u8], document: &Value) {
    let Some(data) = within(bytes.len(), 20, 16 << 10, || vol_data::parse(bytes)) else { return };
    if document.is_object() {
        assert_eq!(document["specVolID"], data.name.as_str());
        assert_eq!(document["driverName"], data.driver.as_str());
        assert_eq!(document["volumeHandle"], data.handle.as_str());
        assert_eq!(data.is_persistent() == Some(true), document["volumeLifecycleMode"] == "Persistent");
    }
}

/// An answer is asked for what it has itself, so that a claim can come of it.
fn persistent_volumes(bytes: &[u8], document: &Value) {
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (name, namespace) = (text("/metadata/name"), text("/spec/claimRef/namespace"));
    let csi = Source::Csi { driver: text("/spec/csi/driver"), handle: text("/spec/csi/volumeHandle") };
    for source in [csi, Source::CsiDevice, Source::InTree("nfs")] {
        let told = within(bytes.len(), 200, 16 << 10, || claim(bytes, &name, &namespace, &source));
        let Ok(Some(told)) = told else { continue };
        assert_eq!((text("/kind").as_str(), text("/status/phase").as_str()), ("PersistentVolume", "Bound"));
        assert!(!told.is_empty() && text("/spec/claimRef/name") == told);
        assert_eq!(document.pointer("/spec/csi").is_some_and(Value::is_object), source != Source::InTree("nfs"));
        assert_ne!(claim(bytes, &name, &format!("{namespace}x"), &source), Ok(Some(told)));
    }
}

fn mounts(bytes: &[u8]) {
    let Ok(table) = mount_table::parse(bytes) else { return };
    for mount in &table {
        let Some((Place { uid, plugin, name }, form)) = table::volume(mount, Path::new(KUBELET)) else { continue };
        for text in [&uid, &plugin, &name] {
            assert!(!text.is_empty() && text.len() <= 253 && !text.contains('/') && text != "..", "{text:?}");
        }
        if let Form::Filesystem { below, .. } = &form {
            assert!(below.components().all(|part| matches!(part, Component::Normal(_))), "{below:?}");
            assert!(below.starts_with(&uid) && !plugin.contains("secret"));
        }
    }
}

fn partitions(bytes: &[u8]) {
    let Some(size) = table::device_size(bytes, "vda") else { return };
    let text = String::from_utf8_lossy(bytes);
    let kib = (size.0 / 1024).to_string();
    assert!(size.0 == u64::MAX || text.contains(&kib), "{kib} is not in the text");
}
