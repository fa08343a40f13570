//! Log lines on standard error, as logfmt or JSON: `ts`, `level`, `msg`, `target`, then the event's own fields.

use std::fmt::Write as _;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, reload};

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `key=value`, values quoted where needed.
    #[default]
    Logfmt,
    /// One object per line.
    Json,
}

/// Changes the filter while running.
#[derive(Clone)]
pub struct FilterHandle(reload::Handle<EnvFilter, tracing_subscriber::Registry>);

impl FilterHandle {
    /// Sets the filter; one that does not parse changes nothing.
    pub fn set(&self, filter: &str) {
        if let Ok(filter) = EnvFilter::try_new(with_quiet_server(filter)) {
            let _ = self.0.reload(filter);
        }
    }
}

/// Says what is wrong with a filter.
pub fn check_filter(filter: &str) -> Result<(), String> {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let bare = !filter.contains(['=', ',']);
    if bare && !levels.contains(&filter.to_ascii_lowercase().as_str()) && !filter.contains("::") {
        return Err(format!("{filter:?} is none of {}, nor a filter like info,kata_pulse=debug", levels.join(", ")));
    }
    EnvFilter::try_new(filter).map(|_| ()).map_err(|error| error.to_string())
}

/// The filter, with the web server's own words about its workers kept out unless asked for, and about its clients: each
/// of them could fill the log with errors that are not ours.
fn with_quiet_server(filter: &str) -> String {
    if filter.contains("actix") { filter.to_owned() } else { format!("{filter},actix_server=warn,actix_http=off") }
}

/// Sends the process's log lines to standard error from now on.
pub fn init(format: Format, filter: &str) -> FilterHandle {
    let filter = EnvFilter::try_new(with_quiet_server(filter)).unwrap_or_else(|_| EnvFilter::new("info"));
    let (filter, handle) = reload::Layer::new(filter);
    let layer = tracing_subscriber::fmt::layer().event_format(format).with_writer(std::io::stderr);
    // Fails only if called twice; the first subscriber then stays.
    let _ = tracing_subscriber::registry().with(filter).with(layer).try_init();
    FilterHandle(handle)
}

impl<S, N> FormatEvent<S, N> for Format
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> std::fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let time = humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string();
        let level = event.metadata().level().as_str().to_ascii_lowercase();
        let mut line = vec![("ts", time), ("level", level), ("msg", fields.message)];
        line.push(("target", event.metadata().target().to_owned()));
        line.extend(fields.rest);
        match self {
            Self::Logfmt => {
                for (at, (key, value)) in line.iter().enumerate() {
                    if at > 0 {
                        writer.write_char(' ')?;
                    }
                    write!(writer, "{key}=")?;
                    write_logfmt_value(&mut writer, value)?;
                }
            }
            Self::Json => {
                let object: serde_json::Map<String, serde_json::Value> =
                    line.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
                write!(writer, "{}", serde_json::Value::Object(object))?;
            }
        }
        writeln!(writer)
    }
}

/// Quotes what would end or break a logfmt value.
fn write_logfmt_value(writer: &mut Writer<'_>, value: &str) -> std::fmt::Result {
    let plain =
        !value.is_empty() && value.chars().all(|c| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '='));
    if plain { writer.write_str(value) } else { write!(writer, "{value:?}") }
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            self.rest.push((field.name(), format!("{value:?}")));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.rest.push((field.name(), value.to_owned()));
        }
    }
}
