//! Names that get no samples, because somebody who runs the node said so.

use regex_lite::Regex;

/// Names in which a regular expression matches somewhere: `^` and `$` are the user's, as with node_exporter's flags.
#[derive(Clone, Debug, Default)]
pub struct Exclude(Option<Regex>);

impl Exclude {
    /// From a regular expression; an empty one leaves nothing out. The error says what is wrong with it.
    pub fn new(pattern: &str) -> Result<Self, String> {
        if pattern.is_empty() {
            return Ok(Self(None));
        }
        match Regex::new(pattern) {
            Ok(regex) => Ok(Self(Some(regex))),
            Err(error) => Err(format!("{pattern:?} is no regular expression: {error}")),
        }
    }

    /// Whether this name is left out.
    pub fn has(&self, name: &str) -> bool {
        self.0.as_ref().is_some_and(|regex| regex.is_match(name))
    }

    /// The regular expression.
    pub fn as_str(&self) -> &str {
        self.0.as_ref().map_or("", Regex::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_left_out_where_the_pattern_matches() {
        let exclude = Exclude::new("^(cali|lxc)|_peer$").unwrap();
        assert!(["cali12", "lxc_health", "a_peer"].iter().all(|name| exclude.has(name)));
        assert!(["eth0", "xcali", "a_peer1", ""].iter().all(|name| !exclude.has(name)));
        assert!(!Exclude::new("").unwrap().has(""));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let problem = Exclude::new("eth(").unwrap_err();
        assert!(problem.starts_with("\"eth(\" is no regular expression: ") && !problem.contains('\n'), "{problem}");
    }
}
