//! Parsers that are not ours: Python's `prometheus_client` for OpenMetrics.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde::Deserialize;

use super::exposition::Labels;

/// What the OpenMetrics parser gives for a family.
#[derive(Debug, Deserialize)]
pub struct ParsedFamily {
    pub name: String,
    pub r#type: String,
    pub unit: String,
    pub help: String,
    pub samples: Vec<(String, Labels, String)>,
}

/// Reads an OpenMetrics body with Python's parser, or says what it finds wrong.
pub fn python(body: &[u8]) -> Result<Vec<ParsedFamily>, String> {
    let python = std::env::var_os("KATA_PULSE_PYTHON")
        .expect("KATA_PULSE_PYTHON must name a Python that has prometheus-client: `make test` sets it");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/strict_openmetrics.py");
    let output = fed(Command::new(python).arg(script), body, "the Python that KATA_PULSE_PYTHON names");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    if let Some(refused) = complaint.strip_prefix("not OpenMetrics: ") {
        return Err(refused.trim_end().to_owned());
    }
    assert!(output.status.success(), "{complaint}");
    Ok(serde_json::from_slice(&output.stdout).expect("JSON of the script"))
}

/// Reads an OpenMetrics body with Python's parser, which must find nothing wrong with it.
pub fn parsed_by_python(body: &[u8]) -> Vec<ParsedFamily> {
    python(body).unwrap_or_else(|problem| panic!("{problem}\n{}", String::from_utf8_lossy(body)))
}

/// Runs a program on an input.
pub fn fed(command: &mut Command, input: &[u8], what: &str) -> Output {
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.unwrap_or_else(|error| panic!("start {what}: {error}"));
    let mut stdin = child.stdin.take().expect("standard input is piped");
    let input = input.to_owned();
    let writing = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("wait for the program");
    // A program that fails early does not read to the end; its own message says more.
    let _ = writing.join().expect("no panic while writing");
    output
}
