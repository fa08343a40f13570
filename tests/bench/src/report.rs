//! The figures as tables, and the page of the documentation around them.

use std::fmt::Write;

use crate::bounds::{self, megabytes};
use crate::figures::{Beside, CountedLoad, Figures, Kind, Load};

/// The page, with a place for each table.
const PAGE: &str = include_str!("performance.md");

/// The page of the documentation.
pub fn page(figures: &Figures) -> String {
    let places = [
        ("{{machine}}", machine(figures)),
        ("{{bounds}}", bounds(figures)),
        ("{{kata}}", loads(figures, |kind| kind != Kind::Runc)),
        ("{{runc}}", loads(figures, |kind| kind == Kind::Runc)),
        ("{{collectors}}", beside(&figures.collectors)),
        ("{{walk}}", walk(figures)),
        ("{{host}}", beside(&figures.host)),
        ("{{counted}}", counted(figures)),
        ("{{micro}}", micro(figures)),
    ];
    places.into_iter().fold(PAGE.to_owned(), |page, (place, text)| page.replace(place, text.trim_end()))
}

/// The tables alone.
pub fn tables(figures: &Figures) -> String {
    let all = [
        machine,
        bounds,
        |figures: &Figures| loads(figures, |_| true),
        |figures: &Figures| beside(&figures.collectors),
        |figures: &Figures| format!("emptyDirs walked: {}\n", walk(figures)),
        |figures: &Figures| beside(&figures.host),
        counted,
        micro,
    ];
    all.into_iter().map(|table| table(figures)).collect::<Vec<_>>().join("\n")
}

fn machine(figures: &Figures) -> String {
    let machine = &figures.machine;
    let mut text = String::new();
    for (what, value) in [
        ("Date", machine.date.clone()),
        ("Commit", machine.commit.clone()),
        ("Command", format!("`{}`", machine.command)),
        ("Processors", machine.cpus.clone()),
        ("Memory", machine.memory.clone()),
        ("Kernel", format!("Linux {}, cgroup {}", machine.kernel, machine.cgroup)),
        ("Compiler", machine.compiler.clone()),
        ("Load average before and after", machine.busy.join("; ")),
    ] {
        text.push_str(&format!("- {what}: {value}\n"));
    }
    text
}

fn bounds(figures: &Figures) -> String {
    let mut table = Table::new(&["load", "bound", "measured", "× floor", "kept", "command"]);
    let mut remarks = String::new();
    for row in bounds::rows(figures) {
        let kept = match row.kept {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "–",
        };
        let command = format!("`{}`", figures.machine.command);
        table.row([row.load, row.bound, &row.measured, &row.ratio, kept, &command]);
        let unexplained = row.kept == Some(false) && row.remark.is_empty();
        let remark = if unexplained { "missed, and not explained yet." } else { row.remark };
        if !remark.is_empty() && row.kept != Some(true) {
            remarks.push_str(&format!("- {}, {}: {remark}\n", row.load, row.bound));
        }
    }
    if remarks.is_empty() { table.text } else { format!("{}\n{remarks}", table.text) }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Kata => "Kata, by agent and VMM",
        Kind::Compressed => "the same, gzip",
        Kind::Fallback => "Kata, by the shims",
        Kind::PassThrough => "Kata, `/metrics/kata`",
        Kind::Runc => "runc",
    }
}

fn loads(figures: &Figures, wanted: impl Fn(Kind) -> bool) -> String {
    let heads = [
        "load",
        "pods",
        "containers",
        "files, requests",
        "bytes in, out",
        "CPU ms p50, p99",
        "floor",
        "ratio",
        "reopening floor",
        "ratio",
        "wall ms p50, p99",
        "floor",
        "RSS MB, peak",
    ];
    let mut table = Table::new(&heads);
    for load in figures.loads.iter().filter(|load| wanted(load.kind)) {
        let Load { kind, sandboxes, containers, files, requests, body, read, cpu, wall, held, anew, .. } = load;
        table.row([
            name(*kind),
            &sandboxes.to_string(),
            &containers.to_string(),
            &format!("{files}, {requests}"),
            &format!("{}, {}", kilobytes(*read), kilobytes(u64::try_from(*body).unwrap_or_default())),
            &format!("{:.2}, {:.2}", cpu.p50, cpu.p99),
            &format!("{:.2}", held.cpu.p50),
            &format!("{:.2}", load.ratio()),
            &format!("{:.2}", anew.cpu.p50),
            &format!("{:.2}", cpu.p50 / anew.cpu.p50),
            &format!("{:.1}, {:.1}", wall.p50, wall.p99),
            &format!("{:.1}", held.wall.p50),
            &format!("{:.1}, {:.1}", megabytes(load.resident), megabytes(load.peak)),
        ]);
    }
    table.text
}

fn kilobytes(bytes: u64) -> String {
    format!("{} kB", (bytes + 500) / 1000)
}

fn beside(all: &[Beside]) -> String {
    let heads =
        ["what", "samples", "bytes", "CPU ms p50, p99", "mean, all it does", "wall ms p50, p99", "RSS MB, peak"];
    let mut table = Table::new(&heads);
    for Beside { name, samples, body, cpu, mean, wall, resident, peak } in all {
        table.row([
            name,
            &samples.map_or_else(|| "–".to_owned(), |samples| samples.to_string()),
            &body.to_string(),
            &format!("{:.2}, {:.2}", cpu.p50, cpu.p99),
            &mean.map_or_else(|| "–".to_owned(), |mean| format!("{mean:.2}")),
            &format!("{:.1}, {:.1}", wall.p50, wall.p99),
            &format!("{:.1}, {:.1}", megabytes(*resident), megabytes(*peak)),
        ]);
    }
    table.text
}

fn walk(figures: &Figures) -> String {
    format!("{} entries in {:.1} ms", figures.walk.entries, figures.walk.seconds * 1e3)
}

fn counted(figures: &Figures) -> String {
    let mut table = Table::new(&["load", "count", "instructions", "allocations"]);
    for CountedLoad { kind, count, of } in &figures.counted {
        table.row([
            name(*kind),
            &count.to_string(),
            &format!("{:.2} million", of.instructions as f64 / 1e6),
            &of.allocations.to_string(),
        ]);
    }
    for kind in [Kind::Kata, Kind::Runc] {
        let mut of_kind = figures.counted.iter().filter(|load| load.kind == kind);
        let (Some(few), Some(many)) = (of_kind.next(), of_kind.next()) else { continue };
        let more = (many.count - few.count) as f64;
        table.row([
            name(kind),
            "each more",
            &format!("{:.3} million", (many.of.instructions as f64 - few.of.instructions as f64) / more / 1e6),
            &format!("{:.1}", (many.of.allocations as f64 - few.of.allocations as f64) / more),
        ]);
    }
    table.text
}

fn micro(figures: &Figures) -> String {
    let mut table = Table::new(&["benchmark", "bytes", "time", "MB/s"]);
    for micro in &figures.micro {
        let rate = micro.bytes as f64 / micro.nanos * 1e3;
        table.row([
            &micro.name,
            &micro.bytes.to_string(),
            &format!("{:.2} µs", micro.nanos / 1e3),
            &format!("{rate:.0}"),
        ]);
    }
    table.text
}

/// A table in Markdown.
struct Table {
    text: String,
}

impl Table {
    fn new(heads: &[&str]) -> Self {
        let mut table = Self { text: String::new() };
        table.line(heads);
        table.line(&vec!["---"; heads.len()]);
        table
    }

    fn row<const N: usize>(&mut self, cells: [&str; N]) {
        self.line(&cells);
    }

    fn line(&mut self, cells: &[&str]) {
        // A String takes every write.
        writeln!(self.text, "| {} |", cells.join(" | ")).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_of_the_page_is_filled() {
        let page = page(&Figures::default());
        assert!(!page.contains("{{") && page.contains("| load | bound |"), "{page}");
    }
}
