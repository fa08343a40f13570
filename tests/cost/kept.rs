//! What things cost, kept in `tests/golden/cost`.

use std::fs;
use std::path::Path;

/// One cost of one more of something.
pub struct Cost {
    pub of: String,
    pub measured: f64,
    /// By how much it may differ from what is kept: less than what it costs to do one thing more.
    pub margin: f64,
}

/// Compares with what is kept under this name; `UPDATE_GOLDEN=1` keeps these.
#[track_caller]
pub fn compare(name: &str, costs: &[Cost]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cost").join(name);
    let lines = costs.iter().map(|cost| format!("{}: {:.2}\n", cost.of, cost.measured));
    let measured: String = lines.collect();
    println!("{name}\n{measured}");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().expect("it lies in a directory")).expect("a directory for golden files");
        return fs::write(&path, measured).expect("a golden file");
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let kept_of =
        |of: &str| kept.lines().find_map(|line| line.strip_prefix(of)?.strip_prefix(": ")?.parse::<f64>().ok());
    let mut faults = Vec::new();
    for Cost { of, measured, margin } in costs {
        match kept_of(of) {
            None => faults.push(format!("{of} is {measured:.2}, and none is kept")),
            Some(kept) if (measured - kept).abs() > *margin => {
                let word = if *measured > kept { "more than" } else { "less than" };
                faults.push(format!("{of} is {measured:.2}, {word} {kept:.2} ± {margin:.2}"));
            }
            Some(_) => {}
        }
    }
    let other = kept.lines().count() != costs.len();
    assert!(!other, "{name} keeps other costs than are measured:\n{kept}");
    assert!(
        faults.is_empty(),
        "{name}:\n  {}\nfor a good reason, or for the better: UPDATE_GOLDEN=1, and tell why in the commit",
        faults.join("\n  ")
    );
}
