//! Imports go one way: leaves know nobody, the three stages know leaves and never each other, and only `agent` and
//! `main` join them. Every path that leaves a module is found in the source and held against that rule.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

mod support;

use support::paths;

/// What each part of the crate may name beside itself. `main` is the binary, `lib` declares the parts.
const RULE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("heap", &[]),
    ("kubernetes", &[]),
    ("open_fds", &[]),
    ("telemetry", &["open_fds"]),
    ("log", &[]),
    ("cri", &["telemetry"]),
    ("containerd", &["cri"]),
    ("discover", &["cri", "model", "telemetry"]),
    ("protos", &[]),
    ("flight", &["model"]),
    ("unix_socket", &[]),
    ("transport", &["protos", "unix_socket"]),
    ("unix_http", &["unix_socket"]),
    ("collect", &["cri", "kubernetes", "model", "open_fds", "protos", "telemetry", "transport", "unix_http"]),
    ("web", &["kubernetes", "telemetry"]),
    ("expose", &["cri", "heap", "model", "telemetry", "web"]),
    // Names what the others take as options, but none that is above it.
    ("config", &["collect", "cri", "discover", "expose", "kubernetes", "log", "model", "web"]),
    (
        "agent",
        &["collect", "config", "containerd", "cri", "discover", "expose", "flight", "kubernetes", "model", "telemetry"],
    ),
    ("cli", &["config"]),
    ("service", &["model"]),
    (
        "main",
        &[
            "agent",
            "cli",
            "collect",
            "config",
            "cri",
            "discover",
            "expose",
            "heap",
            "log",
            "model",
            "service",
            "telemetry",
            "web",
        ],
    ),
    ("lib", &[]),
];

/// What a part names and may not, one line per place.
fn breaches(part: &str, inside: &[&str], source: &str) -> Vec<String> {
    let Some((_, allowed)) = RULE.iter().find(|(name, _)| *name == part) else {
        return vec![format!("{part}: a part of the crate that the rule does not know")];
    };
    let foreign = |target: &&paths::Reference| target.part != part && !allowed.contains(&target.part.as_str());
    let found = paths::references(source, inside);
    found.iter().filter(foreign).map(|target| format!("line {}: {part} names {}", target.line, target.part)).collect()
}

/// The source files below a directory.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("list the sources") {
        let path = entry.expect("a directory can be listed to its end").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The module that a file is: `discover/cgroups.rs` and `discover/cgroups/mod.rs` are both `discover`, `cgroups`.
fn module_of(file: &Path) -> Vec<&str> {
    let mut module: Vec<&str> = file.iter().map(|name| name.to_str().expect("a plain name")).collect();
    let name = module.pop().and_then(|name| name.strip_suffix(".rs")).expect("a source file");
    if name != "mod" {
        module.push(name);
    }
    module
}

#[test]
fn imports_go_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut faults = Vec::new();
    let mut parts = BTreeSet::new();
    for file in sources(&root) {
        let relative = file.strip_prefix(&root).unwrap();
        let module = module_of(relative);
        parts.insert(module[0].to_owned());
        let source = fs::read_to_string(&file).unwrap();
        let inside: &[&str] = if matches!(module[0], "main" | "lib") { &[] } else { &module };
        let found = breaches(module[0], inside, &source);
        faults.extend(found.into_iter().map(|fault| format!("src/{}: {fault}", relative.display())));
    }
    let known: BTreeSet<String> = RULE.iter().map(|(part, _)| (*part).to_owned()).collect();
    assert_eq!(parts, known, "the rule and the crate have the same parts");
    assert!(faults.is_empty(), "{} breaches of the import rule:\n{}", faults.len(), faults.join("\n"));
}

/// The breaches of a made-up file.
fn caught(module: &[&str], source: &str) -> Vec<String> {
    breaches(module[0], module, source)
}

#[test]
fn every_way_to_name_another_part_is_caught() {
    for source in [
        "use crate::expose::text::Text;",
        "use crate::{model::units::Bytes, expose::text::Text};",
        "use crate::{\n    expose,\n};",
        "pub(crate) use crate::expose as words;",
        "fn f() { crate::expose::number::write(v, out) }",
        "fn f(x: &crate :: expose :: walk::View) {}",
        "macro_rules! m { () => { $crate::expose::page::Pages } }",
        "use super::super::expose::text::Text;",
        "use super::super::{model, expose};",
        "mod tests { use super::super::super::expose::text::Text; }",
        "use kata_pulse::expose::text::Text;",
        "use {crate::model, crate::expose};",
    ] {
        let line = 1 + source.find("expose").map_or(0, |at| source[..at].matches('\n').count());
        let expected = format!("line {line}: discover names expose");
        assert_eq!(caught(&["discover", "cgroups"], source), [expected], "{source}");
    }
    assert_eq!(caught(&["model", "units"], "use crate::telemetry::Telemetry;"), ["line 1: model names telemetry"]);
    assert_eq!(caught(&["cri"], "use crate::model::units::Bytes;"), ["line 1: cri names model"]);
    assert_eq!(caught(&["config"], "use crate::agent::AgentHandle;"), ["line 1: config names agent"]);
    assert_eq!(caught(&["utils"], ""), ["utils: a part of the crate that the rule does not know"]);
}

#[test]
fn what_only_looks_like_an_import_is_not_caught() {
    for source in [
        "use crate::model::units::Bytes; use crate::cri::Cri; use crate::telemetry::Telemetry;",
        "use crate::discover::cgroup_path::Class;",
        "use super::cgroup_path::Class; use self::inner::X;",
        "mod tests { use super::*; use super::super::cgroup_path::Class; }",
        "mod tests { mod deeper { } } use super::expose;",
        "// use crate::expose::text::Text;\n/* crate::collect /* crate::agent */ crate::expose */",
        "/// Like [`crate::expose::text`].\nfn f() {}",
        r##"const A: &str = "crate::expose"; const B: &str = r#"" crate::agent"#; const C: char = '"';"##,
        "fn f<'a>(x: &'a str) -> char { 'c' } const Q: char = '\\''; // crate::expose",
        "use std::collections::HashMap; use tokio::sync::watch;",
        "use ::expose::x; let expose = 1; let y = mine::expose::z;",
    ] {
        assert_eq!(caught(&["discover", "cgroups"], source), [""; 0], "{source}");
    }
}
