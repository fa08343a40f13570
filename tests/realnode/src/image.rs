//! The images of pods, made on the spot from busybox as one `docker save` archive, so that no registry is needed.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::needs::BUSYBOX;

/// The image of the sandbox container.
pub const PAUSE_IMAGE: &str = "registry.kata-pulse.test/pause:3.10";

/// The image of every other container: busybox with all its applets.
pub const APP_IMAGE: &str = "registry.kata-pulse.test/shop/app:1.0";

const LAYER: &str = "layer.tar";

/// Writes an archive that holds both images to `path`. They share a layer but not a configuration: images of one
/// configuration are one image to the runtime, which would then answer with either name.
pub(crate) fn write_archive(path: &Path) -> Result<()> {
    let layer = layer()?;
    let diff_id = format!("sha256:{}", hexadecimal(&Sha256::digest(&layer)));
    let file = File::create(path).with_context(|| format!("make {}", path.display()))?;
    let mut archive = Builder::new(file);
    append_file(&mut archive, LAYER, 0o644, &layer)?;
    let mut manifest = Vec::new();
    for (name, reference, command) in
        [("pause.json", PAUSE_IMAGE, json!(["sleep", "1000000000"])), ("app.json", APP_IMAGE, json!(["sh"]))]
    {
        let configuration = configuration(&diff_id, &command).to_string();
        append_file(&mut archive, name, 0o644, configuration.as_bytes())?;
        manifest.push(json!({"Config": name, "RepoTags": [reference], "Layers": [LAYER]}));
    }
    let manifest = Value::from(manifest).to_string();
    append_file(&mut archive, "manifest.json", 0o644, manifest.as_bytes())?;
    archive.into_inner()?.flush().context("write the image archive")
}

fn configuration(diff_id: &str, command: &Value) -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "architecture": architecture,
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": command},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created_by": "kata-pulse-realnode"}],
    })
}

/// The root file system: busybox, a link for each applet, and a directory that takes files.
fn layer() -> Result<Vec<u8>> {
    let mut layer = Builder::new(Vec::new());
    for (directory, mode) in [("bin/", 0o755), ("tmp/", 0o1777)] {
        let mut header = header(EntryType::Directory, mode, 0);
        layer.append_data(&mut header, directory, std::io::empty())?;
    }
    let busybox = fs::read(BUSYBOX).with_context(|| format!("read {BUSYBOX}"))?;
    append_file(&mut layer, "bin/busybox", 0o755, &busybox)?;
    let applets = Command::new(BUSYBOX).arg("--list").output().with_context(|| format!("run {BUSYBOX} --list"))?;
    for applet in String::from_utf8(applets.stdout)?.lines() {
        if applet != "busybox" {
            let mut header = header(EntryType::Symlink, 0o777, 0);
            layer.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
        }
    }
    layer.into_inner().context("write the image layer")
}

fn append_file(archive: &mut Builder<impl Write>, name: &str, mode: u32, content: &[u8]) -> Result<()> {
    let mut header = header(EntryType::Regular, mode, u64::try_from(content.len())?);
    archive.append_data(&mut header, name, content).with_context(|| format!("write {name} to the image archive"))
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
