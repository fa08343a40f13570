//! Captured input for this folder's tests.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::GzDecoder;

/// A packed fixture's content.
pub(crate) fn unpacked(packed: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut content).unwrap();
    content
}

/// Files of the recorded node whose path contains `part`, by path from the moment on: `t0/kata/<id>/agent-url.http`.
/// Far cheaper than unpacking the node's six thousand files.
pub(crate) fn recorded(part: &str) -> HashMap<String, Vec<u8>> {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mixed-node-cgroup2.tar.gz");
    let mut archive = tar::Archive::new(GzDecoder::new(BufReader::new(File::open(archive).unwrap())));
    let mut files = HashMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let Some(path) = path.strip_prefix("mixed-node-cgroup2/") else { continue };
        if path.contains(part) && entry.header().entry_type().is_file() {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(path.to_owned(), content);
        }
    }
    assert!(!files.is_empty(), "{part}");
    files
}

/// The recorded Kata sandbox that is split between two cgroups, `kata-idle`.
pub(crate) const IDLE: &str = "80a5e164df55df791e139e6d1c59092c4566fbdffd016b715c7ad48cdbea9e45";

/// The recorded Kata sandbox that is in one cgroup, `kata-web`.
pub(crate) const WEB: &str = "760e7a6493d4f0add8a217d0f6a019cc288419dd8f375035586436c4c816d236";
