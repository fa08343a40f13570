//! Whole expositions, kept in `tests/golden`. `UPDATE_GOLDEN=1` writes them anew; read the difference.

use std::path::Path;

/// The body without what differs from run to run and from machine to machine: the clock, durations, modification
/// times of unpacked directories, and sizes of whatever filesystem of this machine has the recorded one's number.
pub fn settled(body: &str) -> String {
    let kept = |line: &&str| {
        let volatile = [
            "container_last_seen{",
            "kata_pulse_collector_duration_seconds{",
            "kata_pulse_sandbox_scrape_duration_seconds{",
        ];
        let measured_here = ["container_fs_limit_bytes", "container_fs_inodes_free", "container_fs_inodes_total"];
        let from_file_time = line.starts_with("container_start_time_seconds{") && line.contains("name=\"\"");
        let of_root = line.starts_with("container_fs_usage_bytes{") && line.contains("id=\"/\"");
        !(volatile.iter().any(|name| line.starts_with(name))
            || measured_here.iter().any(|name| line.contains(name))
            || (from_file_time && !line.contains("id=\"/\""))
            || of_root)
    };
    body.lines().filter(kept).flat_map(|line| [line, "\n"]).collect()
}

/// Compares a body with the golden file of this name.
#[track_caller]
pub fn golden(name: &str, body: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().expect("it lies in a directory")).expect("a directory for golden files");
        std::fs::write(&path, body).expect("a golden file");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let mut pairs = body.lines().zip(expected.lines()).enumerate();
    if let Some((at, (is, should))) = pairs.find(|(_, (is, should))| is != should) {
        panic!("{name} line {}:\n  is     {is}\n  should {should}\nread the difference, then UPDATE_GOLDEN=1", at + 1);
    }
    assert_eq!(body.lines().count(), expected.lines().count(), "{name} has another number of lines");
}
