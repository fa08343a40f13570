//! Texts of guests and shims, and the numbers in them.

use std::sync::Arc;
use std::time::Duration;

use kata_pulse::collect::cgroup::parse;
use kata_pulse::collect::kata::exposition::{integer, measure};
use kata_pulse::collect::kata::guest_text::{MAX_DEVICES, Parser};
use kata_pulse::collect::kata::passthrough::{MAX_SAMPLES, Reading};
use kata_pulse::expose::number::{write, write_float};
use kata_pulse::expose::passthrough;
use kata_pulse::expose::text::Text;
use kata_pulse::model::inventory::KataRuntime;
use kata_pulse::model::passthrough::{PassedKind, PassedSandbox, Passthrough};
use kata_pulse::model::snapshot::{KataReport, SourceState};
use kata_pulse::model::units::Value;

use crate::exposition::Page;
use crate::memory::within;
use crate::page;
use crate::reference::{number, pieces};

/// The text of a kata-agent, or of a shim.
pub fn guest_text(text: &[u8]) {
    let parsed = within(text.len(), 60, 256 << 10, || Parser::parse(text));
    let mut in_pieces = Parser::new();
    pieces(text).into_iter().for_each(|piece| in_pieces.feed(piece));
    assert_eq!(in_pieces.finish(), parsed, "the way the text is cut makes a difference");
    let report = parsed.report;
    let lines = text.split(|byte| *byte == b'\n').count() as u64;
    assert!(report.samples + report.overlong <= lines && report.malformed <= report.samples, "{report:?}");
    let guest = parsed.guest;
    for devices in [guest.interfaces.len(), guest.disks.len(), guest.filesystems.len()] {
        assert!(devices <= MAX_DEVICES);
    }
    let network = guest.interfaces.clone();
    page::of_kata(KataReport { guest: Some(guest), network, dropped: report.dropped(), ..KataReport::default() });
}

/// The same text, to be passed on. The first byte chooses the runtime.
pub fn shim_passthrough(input: &[u8]) {
    let Some((choice, text)) = input.split_first() else { return };
    let runtime = if choice & 1 == 0 { KataRuntime::Go } else { KataRuntime::Rs };
    let read = |pieces: Vec<&[u8]>| {
        let mut reading = Reading::new(runtime);
        pieces.into_iter().for_each(|piece| reading.feed(piece));
        reading.finish()
    };
    let (families, dropped) = within(text.len(), 100, 64 << 10, || read(vec![text]));
    let (again, dropped_again) = read(pieces(text));
    assert_eq!((&families, dropped), (&again, dropped_again), "the way the text is cut makes a difference");
    let kept = families.values().map(|family| family.samples.len()).sum::<usize>();
    assert!(kept <= MAX_SAMPLES);
    let ids = [page::SANDBOX, "another"];
    let sandboxes = ids.into_iter().zip([families, again]).map(|(id, families)| PassedSandbox {
        sandbox: Arc::new(page::sandbox(id)),
        families,
        shim: SourceState::Up,
        dropped,
    });
    let passed = Passthrough { sandboxes: sandboxes.collect(), took: Duration::ZERO };
    let page = page_of(&passed, &[]);
    assert_eq!(page.samples().count(), 2 * kept, "samples were lost or made up");
    let counters: Vec<&str> = passed.sandboxes[0]
        .families
        .iter()
        .filter(|(_, family)| family.kind == PassedKind::Counter)
        .map(|(name, _)| &**name)
        .collect();
    for sample in page.samples() {
        assert!(ids.iter().any(|id| sample.label("sandbox_id") == Some(id)), "{sample:?}");
        assert_eq!((sample.label("cri_name"), sample.label("cri_namespace")), (Some("web"), Some("shop")));
        assert!(sample.value >= 0.0 || !counters.contains(&sample.name.as_str()), "{sample:?}");
    }
    let guests = page_of(&passed, &["kata_guest_".to_owned()]);
    assert!(guests.families.iter().all(|family| family.name.starts_with("kata_guest_")));
}

fn page_of(passed: &Passthrough, prefixes: &[String]) -> Page {
    page::of_text(|format| {
        let mut text = Text::new(format, 0);
        passthrough::write(passed, prefixes, &mut text);
        text
    })
}

/// The text of a number, and eight bytes as one.
pub fn numbers(input: &[u8]) {
    assert_eq!(parse::number(input), number(input));
    let float = std::str::from_utf8(input).ok().and_then(|text| text.parse::<f64>().ok());
    if let Some(count) = integer(input) {
        // Both are the nearest float to the same number.
        assert_eq!(float, Some(Value::Int(count).as_f64()), "{count}");
    } else if let Some(count) = number(input) {
        panic!("{count} is no integer");
    }
    if let Some(measured) = measure(input) {
        assert_eq!(float, Some(measured));
        assert!(measured.is_finite() && measured >= 0.0);
    }
    let Some(bytes) = input.first_chunk::<8>() else { return };
    let scale = input.get(8).map_or(0, |byte| byte % 10);
    written_and_read(|out| write_float(f64::from_le_bytes(*bytes), out), f64::from_le_bytes(*bytes));
    for value in [
        Value::Int(u64::from_le_bytes(*bytes)),
        Value::Decimal { mantissa: u64::from_le_bytes(*bytes), scale },
        Value::Float(f64::from_le_bytes(*bytes)),
    ] {
        written_and_read(|out| write(value, out), value.as_f64());
    }
}

/// What is written is read as the same float, and is as short as it can be.
fn written_and_read(write: impl Fn(&mut Vec<u8>), float: f64) {
    let mut text = Vec::new();
    write(&mut text);
    let text = String::from_utf8(text).expect("ASCII");
    let read: f64 = text.parse().unwrap_or_else(|_| panic!("{text:?} is no number"));
    assert!(read.to_bits() == float.to_bits() || (read.is_nan() && float.is_nan()), "{float:e} is written as {text}");
    let shortest = format!("{float:e}");
    let digits = |text: &str| {
        let mantissa = text.split('e').next().unwrap_or_default();
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        digits.trim_matches('0').len()
    };
    assert!(!float.is_finite() || digits(&text) <= digits(&shortest), "{shortest} is written as {text}");
}
