//! Writes what a package has beside the binary, all of it made from the command line's own definition: the manual page
//! and the completions of bash, zsh and fish. Apart from the agent, which has no use for their generators.

mod manual;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::{CommandFactory, Parser};
use clap_complete::{Shell, generate_to};
use kata_pulse::cli::Cli;

/// Writes kata-pulse.8, kata-pulse.bash, _kata-pulse and kata-pulse.fish.
#[derive(Debug, Parser)]
#[command(name = "package-files")]
struct Arguments {
    /// Directory for the files; it is made if it is not there
    directory: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let Arguments { directory } = Arguments::parse();
    fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    let mut command = Cli::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command, "kata-pulse", &directory)
            .with_context(|| format!("write the completions of {shell} to {}", directory.display()))?;
    }
    let page = directory.join("kata-pulse.8");
    let text = manual::page(Cli::command(), &day()?).context("make the manual page")?;
    fs::write(&page, text).with_context(|| format!("write {}", page.display()))
}

/// The day that the page bears: SOURCE_DATE_EPOCH's, so that a package can be made twice, else today.
fn day() -> anyhow::Result<String> {
    let moment = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(seconds) => {
            let seconds =
                seconds.parse().with_context(|| format!("SOURCE_DATE_EPOCH={seconds}: seconds since 1970"))?;
            UNIX_EPOCH + Duration::from_secs(seconds)
        }
        Err(_) => SystemTime::now(),
    };
    Ok(humantime::format_rfc3339_seconds(moment).to_string().chars().take_while(|letter| *letter != 'T').collect())
}
