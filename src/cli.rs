//! The command line: flags, sub-commands, and the spellings of kata-monitor. Apart from `main` so that the manual page and
//! the shells' completions are made from it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::Settings;

/// Measures every pod of this node where the truth is and serves it as cAdvisor's metrics.
#[derive(Debug, Parser)]
#[command(name = "kata-pulse", version, max_term_width = 100)]
pub struct Cli {
    /// What is set on the command line and in the environment.
    #[command(flatten)]
    pub settings: Settings,

    /// YAML file with the same keys as the flags
    #[arg(long, env = "KATA_PULSE_CONFIG", value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    /// What to do; serve without one.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the program does beside serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Collect once, print, and exit with 1 if a source failed
    Collect {
        /// How to print
        #[arg(long, value_enum, default_value_t = CollectFormat::Prometheus)]
        format: CollectFormat,
    },
    /// List the collectors and whether they are on
    Collectors,
    /// Print the configuration in force, or what is wrong with it
    CheckConfig,
    /// Ask the running agent whether it is alive, for images without a shell
    Healthcheck,
}

/// How `collect` prints.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum CollectFormat {
    /// Text format 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    Openmetrics,
    /// Families and sandboxes as one object.
    Json,
}

/// Flags that kata-monitor spells with one dash; its users' manifests go on working.
const SINGLE_DASH: [&str; 3] = ["-listen-address", "-runtime-endpoint", "-log-level"];

/// The arguments as they were meant.
pub fn arguments(given: impl IntoIterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    given.into_iter().map(|argument| {
        let old = argument.to_str().is_some_and(|text| {
            SINGLE_DASH
                .iter()
                .any(|flag| text.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('=')))
        });
        if old {
            let mut double = OsString::from("-");
            double.push(argument);
            double
        } else {
            argument
        }
    })
}
