//! kata-pulse: run, exit code.

use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use kata_pulse::agent::AgentHandle;
use kata_pulse::cli::{self, Cli, CollectFormat, Command};
use kata_pulse::collect::COLLECTORS;
use kata_pulse::config::{Config, ConfigError, Settings};
use kata_pulse::expose::http::{self, Listen, Routes};
use kata_pulse::expose::json::JsonFamilies;
use kata_pulse::expose::page::Pages;
use kata_pulse::expose::sandboxes;
use kata_pulse::expose::text::{Format as TextFormat, Text};
use kata_pulse::expose::walk::{View, walk};
use kata_pulse::heap;
use kata_pulse::log::{self, FilterHandle};
use kata_pulse::model::snapshot::{Snapshot, SnapshotSource};
use kata_pulse::service::Service;
use kata_pulse::telemetry::{Part, Telemetry};
use kata_pulse::web::{self, Web};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long `collect` may take.
const COLLECT_DEADLINE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    heap::bound();
    let cli = match Cli::try_parse_from(cli::arguments(std::env::args_os())) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let config = match load(&cli) {
        Ok(config) => config,
        Err(error) => return fail(&error.into(), 2),
    };
    let outcome = match &cli.command {
        None => match open_web(&config) {
            Ok((web, telemetry)) => run(serve(&cli, config, web, telemetry)),
            Err(error) => return fail(&error, 2),
        },
        Some(Command::Collect { format }) => run(collect(config, *format)),
        Some(Command::Collectors) => list_collectors(&config),
        Some(Command::CheckConfig) => match check_web(&config) {
            Ok(()) => print(&config.to_yaml()),
            Err(error) => return fail(&error, 2),
        },
        Some(Command::Healthcheck) => healthcheck(&config),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => fail(&error, 1),
    }
}

/// Help and version as clap prints them; a mistake in one line that names it.
#[expect(clippy::print_stderr, reason = "the last word of a process that could not do its work")]
fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Nothing can be done about a closed standard output.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    let problem: Vec<&str> =
        text.lines().take_while(|line| !line.is_empty() && !line.starts_with("Usage")).map(str::trim).collect();
    let problem = problem.join(" ");
    eprintln!("kata-pulse: {}; see kata-pulse --help", problem.strip_prefix("error: ").unwrap_or(&problem));
    ExitCode::from(2)
}

/// The whole chain of causes in one line.
#[expect(clippy::print_stderr, reason = "the last word of a process that could not do its work")]
fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("kata-pulse: {error:#}");
    ExitCode::from(code)
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads may stop early, as `head` does.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("write to standard output"),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn load(cli: &Cli) -> Result<Config, ConfigError> {
    let file = cli.config.as_deref().map_or(Ok(Settings::default()), Settings::from_file)?;
    Config::new(cli.settings.clone().over(file))
}

fn run(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the async runtime")?;
    let outcome = runtime.block_on(work);
    // A read that hangs in the kernel must not keep the process from ending.
    runtime.shutdown_timeout(Duration::from_millis(200));
    outcome
}

/// Logs from here on, and reads the web configuration.
fn open_web(config: &Config) -> anyhow::Result<(Opened, Arc<Telemetry>)> {
    let filter = log::init(config.log_format, &config.log_level);
    let telemetry = Arc::new(Telemetry::new().context("set up self-metrics")?);
    let web = Arc::new(Web::open(config.web()?, Arc::clone(&telemetry))?);
    Ok((Opened { web, filter }, telemetry))
}

/// What there is before anything is served.
struct Opened {
    web: Arc<Web>,
    filter: FilterHandle,
}

fn check_web(config: &Config) -> anyhow::Result<()> {
    Ok(web::check(&config.web()?)?)
}

async fn serve(cli: &Cli, config: Config, opened: Opened, telemetry: Arc<Telemetry>) -> anyhow::Result<ExitCode> {
    let Opened { web, filter } = opened;
    // Before anything says that there is an agent: a signal that nobody waits for would end it.
    let mut terminate = signal(SignalKind::terminate()).context("handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("handle SIGINT")?;
    let hangup = signal(SignalKind::hangup()).context("handle SIGHUP")?;
    let pages = Arc::new(Pages::new(config.metrics_profile, Arc::clone(&telemetry)));
    let handle = AgentHandle::start(&config, Arc::clone(&telemetry));
    let routes = Routes::new(Arc::new(handle.clone()), Arc::clone(&pages), Arc::clone(&telemetry), Arc::clone(&web));
    let listen = Listen { all: &config.listen, health: config.health_listen.as_deref() };
    let (server, bound) = http::serve(routes, listen)?;
    announce(&config);
    web.announce();
    for address in &bound.all {
        tracing::info!(%address, "listening");
    }
    for address in &bound.health {
        tracing::info!(%address, "listening for health checks");
    }
    let service = Arc::new(Service::start(Arc::new(handle.clone()), &bound.all));
    let stopper = server.handle();
    let reloader = Reloader {
        settings: cli.settings.clone(),
        file: cli.config.clone(),
        fixed: Fixed::of(&config),
        web,
        handle,
        pages,
        filter,
        telemetry,
        service: Arc::clone(&service),
    };
    let reloading = tokio::spawn(follow_hangups(hangup, reloader));
    let server = tokio::spawn(server);
    tokio::select! {
        _ = terminate.recv() => tracing::info!(signal = "SIGTERM", "stopping"),
        _ = interrupt.recv() => tracing::info!(signal = "SIGINT", "stopping"),
    }
    service.stopping();
    stopper.stop(true).await;
    reloading.abort();
    server.await.context("wait for the server")?.context("serve")?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

fn announce(config: &Config) {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        revision = env!("KATA_PULSE_REVISION"),
        runtime_endpoint = %config.runtime_endpoint,
        host_root = %config.host_root.display(),
        cgroupfs = %config.cgroupfs.display(),
        scope = config.scope.as_str(),
        profile = config.metrics_profile.as_str(),
        "kata-pulse starts"
    );
}

/// What cannot change without a restart.
#[derive(PartialEq)]
struct Fixed {
    listen: Vec<String>,
    health_listen: Option<String>,
    web_config: Option<PathBuf>,
    tls_self_signed: bool,
    auth_kubernetes: bool,
    service_account_dir: PathBuf,
}

impl Fixed {
    fn of(config: &Config) -> Self {
        Self {
            listen: config.listen.clone(),
            health_listen: config.health_listen.clone(),
            web_config: config.web_config.clone(),
            tls_self_signed: config.tls_self_signed,
            auth_kubernetes: config.auth_kubernetes,
            service_account_dir: config.service_account_dir.clone(),
        }
    }
}

/// What a reload works with.
struct Reloader {
    settings: Settings,
    file: Option<PathBuf>,
    fixed: Fixed,
    web: Arc<Web>,
    handle: AgentHandle,
    pages: Arc<Pages>,
    filter: FilterHandle,
    telemetry: Arc<Telemetry>,
    service: Arc<Service>,
}

async fn follow_hangups(mut hangup: Signal, reloader: Reloader) {
    while hangup.recv().await.is_some() {
        reloader.service.reloading();
        reloader.reload().await;
        reloader.service.reloaded();
    }
}

impl Reloader {
    /// Takes the files' new content; a bad one changes nothing.
    async fn reload(&self) {
        let web = Arc::clone(&self.web);
        if let Err(error) = tokio::task::spawn_blocking(move || web.reload()).await {
            tracing::error!(%error, "reading the web configuration failed");
        }
        let file = self.file.as_deref().map_or(Ok(Settings::default()), Settings::from_file);
        let config = match file.and_then(|file| Config::new(self.settings.clone().over(file))) {
            Ok(config) => config,
            Err(error) => {
                self.telemetry.note_reload(Part::Settings, false);
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::error!(error, "configuration not reloaded, the old one stays");
                return;
            }
        };
        if config.listen != self.fixed.listen {
            tracing::warn!("a changed listen-address needs a restart, the old ones stay");
        }
        if (Fixed { listen: self.fixed.listen.clone(), ..Fixed::of(&config) }) != self.fixed {
            tracing::warn!(
                "a changed web-config, tls-self-signed, auth-kubernetes, service-account-dir or health-listen-address \
                 needs a restart, the old ones stay"
            );
        }
        self.filter.set(&config.log_level);
        self.handle.reload(&config).await;
        self.pages.set_profile(config.metrics_profile);
        announce(&config);
        tracing::info!("configuration reloaded");
    }
}

async fn collect(config: Config, format: CollectFormat) -> anyhow::Result<ExitCode> {
    log::init(config.log_format, &config.log_level);
    let telemetry = Arc::new(Telemetry::new().context("set up self-metrics")?);
    let handle = AgentHandle::start(&config, telemetry);
    let snapshot = handle.snapshot(COLLECT_DEADLINE).await.context("collect")?;
    let text = match format {
        CollectFormat::Prometheus => body(&snapshot, &config, TextFormat::Prometheus),
        CollectFormat::Openmetrics => body(&snapshot, &config, TextFormat::OpenMetrics),
        CollectFormat::Json => {
            let mut families = JsonFamilies::default();
            walk(&snapshot, &View::All, config.metrics_profile, &mut families);
            let sandboxes = sandboxes::entries(&snapshot, &snapshot.inventory, None);
            let object = serde_json::json!({ "families": families.finish(), "sandboxes": sandboxes });
            format!("{object:#}\n")
        }
    };
    print(&text)?;
    let failed = handle.health().checks.iter().any(|check| check.problem.is_some());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn body(snapshot: &Snapshot, config: &Config, format: TextFormat) -> String {
    let mut text = Text::new(format, 0);
    walk(snapshot, &View::All, config.metrics_profile, &mut text);
    // Every byte written came from a `str`.
    String::from_utf8(text.finish()).unwrap_or_default()
}

fn list_collectors(config: &Config) -> anyhow::Result<ExitCode> {
    let enabled = config.enabled_collectors();
    let mut text = format!("{:<12} {:<8} {:<6} WHAT IT READS\n", "COLLECTOR", "DEFAULT", "STATE");
    for collector in COLLECTORS {
        let default = if collector.default { "on" } else { "off" };
        let state = if enabled.contains(&collector.name) { "on" } else { "off" };
        text.push_str(&format!("{:<12} {default:<8} {state:<6} {}\n", collector.name, collector.summary));
    }
    print(&text)
}

/// One question to the agent on this machine: where it serves health, if it does that apart.
fn healthcheck(config: &Config) -> anyhow::Result<ExitCode> {
    let (address, tls) = match &config.health_listen {
        Some(address) => (address, false),
        None => (config.listen.first().context("no listen address")?, web::wants_tls(&web_of(config))?),
    };
    // Listening on all addresses includes the loopback one.
    let address = address.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:");
    let target = address.to_socket_addrs().with_context(|| format!("resolve {address}"))?.next();
    let target = target.with_context(|| format!("resolve {address}"))?;
    let status = web::probe::ask(target, tls).with_context(|| format!("ask {address}"))?;
    anyhow::ensure!(status.split(' ').nth(1) == Some("200"), "{address} answers {status:?}");
    Ok(ExitCode::SUCCESS)
}

/// What decides about TLS. Where the API server is does not matter for that, and need not be known here.
fn web_of(config: &Config) -> web::Options {
    web::Options { file: config.web_config.clone(), self_signed: config.tls_self_signed, kubernetes: None }
}
