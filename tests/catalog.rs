//! `docs/metrics.md` is what the metric tables generate.

use std::fs;
use std::path::Path;

use kata_pulse::expose::catalog;
use kata_pulse::telemetry::Telemetry;

fn markdown() -> String {
    catalog::markdown(&Telemetry::new().expect("every name is there once"))
}

#[test]
fn the_reference_equals_the_tables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let generated = markdown();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &generated).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let mut lines = committed.lines().zip(generated.lines()).enumerate();
    if let Some((at, (is, should))) = lines.find(|(_, (is, should))| is != should) {
        panic!("docs/metrics.md line {}:\n  is     {is}\n  should {should}\nUPDATE_GOLDEN=1 writes it anew", at + 1);
    }
    assert_eq!(committed, generated, "docs/metrics.md is cut short or too long; UPDATE_GOLDEN=1 writes it anew");
}

/// A cell may not end early: Markdown takes every bar for a border, inside code as well.
#[test]
fn every_row_of_a_table_has_as_many_cells_as_its_head() {
    let generated = markdown();
    let mut cells = None;
    for line in generated.lines() {
        if !line.starts_with('|') {
            cells = None;
            continue;
        }
        let count = line.matches('|').count();
        assert_eq!(count, *cells.get_or_insert(count), "{line}");
        assert!(line.ends_with('|'), "{line}");
    }
}
