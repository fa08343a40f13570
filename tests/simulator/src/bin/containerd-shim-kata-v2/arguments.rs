//! Command lines as Go programs take them: a single dash before each name.

use std::collections::BTreeMap;

use anyhow::{Context, bail};

/// Those that say all by themselves.
const SWITCHES: [&str; 1] = ["debug"];

/// What a command line says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    flags: BTreeMap<String, String>,
    /// What stands between the flags and after them.
    pub(crate) words: Vec<String>,
}

impl Arguments {
    /// Takes apart `-namespace k8s.io -debug -id 5f start`; a flag's value may also follow an equals sign.
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut parsed = Self::default();
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let Some(name) = argument.strip_prefix('-') else {
                parsed.words.push(argument);
                continue;
            };
            let name = name.trim_start_matches('-');
            let (name, value) = match name.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None if SWITCHES.contains(&name) => (name, String::new()),
                None => match arguments.next() {
                    Some(value) => (name, value),
                    None => bail!("-{name} has no value"),
                },
            };
            parsed.flags.insert(name.to_owned(), value);
        }
        Ok(parsed)
    }

    /// The value of a flag that must be there.
    pub(crate) fn flag(&self, name: &str) -> anyhow::Result<&str> {
        self.flags.get(name).map(String::as_str).with_context(|| format!("-{name} is missing"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_told_from_words() -> anyhow::Result<()> {
        let line = "-namespace k8s.io -debug --id=5f -publish-binary /usr/bin/containerd start";
        let parsed = Arguments::parse(line.split(' ').map(str::to_owned))?;
        assert_eq!(parsed.words, ["start"]);
        assert_eq!((parsed.flag("namespace")?, parsed.flag("id")?), ("k8s.io", "5f"));
        assert!(parsed.flag("address").is_err());
        assert!(Arguments::parse(["-id".to_owned()].into_iter()).is_err());
        Ok(())
    }
}
