//! The agent's metrics about itself, kept with the `prometheus` crate. A leaf: every stage may count here.

mod process;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

/// Everything the agent counts about itself.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    /// 1 while the last call to the runtime succeeded.
    pub cri_up: IntGauge,
    /// Duration of calls to the runtime, by method.
    pub cri_request_duration: HistogramVec,
    /// Calls to the runtime that failed, by method.
    pub cri_errors: IntCounterVec,
    /// Requests answered, by handler and status code.
    pub http_requests: IntCounterVec,
    /// Requests being answered.
    pub http_in_flight: IntGauge,
    /// Connections of clients.
    pub http_connections: IntGauge,
    /// Connections that were closed on a client that would have kept them, by reason.
    pub http_connections_closed: IntCounterVec,
    /// 1 when the last reload of every [`Part`] of the configuration was taken; set by [`Telemetry::note_reload`].
    pub reload_successful: IntGauge,
    /// The part whose last reload was not taken, by [`Part`].
    not_taken: [AtomicBool; 2],
    /// When the running configuration was taken, Unix time.
    pub reload_time: Gauge,
    /// Collections made.
    pub collections: IntCounter,
    /// Samples of shims that were not passed on.
    pub passthrough_dropped: IntCounter,
    /// Kata sandboxes that were to be measured, each in every collection.
    pub sandbox_scrapes: IntCounter,
    /// Those that could not be, by reason.
    pub sandbox_scrape_failures: IntCounterVec,
    /// What is said beside the shims' metrics only.
    pub monitor: Monitor,
}

/// The parts of the configuration, which are reloaded apart.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// Flags and their file.
    Settings,
    /// The web configuration, with certificates and keys.
    Web,
}

/// The numbers that kata-monitor serves about itself, under its names.
#[derive(Debug)]
pub struct Monitor {
    registry: Registry,
    /// Kata sandboxes that are ready.
    running_shims: IntGauge,
    /// Rounds over all shims.
    scrapes: IntCounter,
    /// Sandboxes that gave nothing in a round.
    failed: IntCounter,
    /// Duration of a round in milliseconds.
    durations: Histogram,
}

/// A family without its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// What it says, a sentence.
    pub help: String,
    /// Names of its labels.
    pub labels: Vec<String>,
}

fn describe(collector: &dyn Collector) -> Vec<Described> {
    let described = collector.desc().into_iter().map(|desc| Described {
        name: desc.fq_name.clone(),
        help: desc.help.clone(),
        labels: desc.variable_labels.clone(),
    });
    described.collect()
}

impl Monitor {
    fn new() -> Result<Self, prometheus::Error> {
        let durations = HistogramOpts::new(
            "kata_monitor_scrape_durations_histogram_milliseconds",
            "How long asking all shims took.",
        );
        let buckets = vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];
        let monitor = Self {
            registry: Registry::new(),
            running_shims: IntGauge::new("kata_monitor_running_shim_count", "Kata sandboxes that are ready.")?,
            scrapes: IntCounter::new("kata_monitor_scrape_count", "How often all shims were asked.")?,
            failed: IntCounter::new("kata_monitor_scrape_failed_count", "Sandboxes that gave nothing when asked.")?,
            durations: Histogram::with_opts(durations.buckets(buckets))?,
        };
        let all: [Box<dyn Collector>; 4] = [
            Box::new(monitor.running_shims.clone()),
            Box::new(monitor.scrapes.clone()),
            Box::new(monitor.failed.clone()),
            Box::new(monitor.durations.clone()),
        ];
        for collector in all {
            monitor.registry.register(collector)?;
        }
        Ok(monitor)
    }

    /// Counts a round over all shims, of which some gave nothing.
    pub fn count_round(&self, shims: usize, failed: usize, took: Duration) {
        self.running_shims.set(i64::try_from(shims).unwrap_or(i64::MAX));
        self.scrapes.inc();
        self.failed.inc_by(u64::try_from(failed).unwrap_or(u64::MAX));
        self.durations.observe(took.as_secs_f64() * 1000.0);
    }

    /// Everything counted so far, families sorted by name.
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }
}

impl Telemetry {
    /// A registry with every metric in it.
    ///
    /// # Errors
    /// Only when two metrics here have the same name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let telemetry = Self {
            cri_up: IntGauge::new("kata_pulse_cri_up", "Whether the last call to the container runtime succeeded.")?,
            cri_request_duration: HistogramVec::new(
                HistogramOpts::new(
                    "kata_pulse_cri_request_duration_seconds",
                    "Duration of calls to the container runtime.",
                )
                .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0]),
                &["method"],
            )?,
            cri_errors: IntCounterVec::new(
                Opts::new("kata_pulse_cri_errors_total", "Calls to the container runtime that failed."),
                &["method"],
            )?,
            http_requests: IntCounterVec::new(
                Opts::new("kata_pulse_http_requests_total", "HTTP requests answered."),
                &["handler", "code"],
            )?,
            http_in_flight: IntGauge::new("kata_pulse_http_requests_in_flight", "HTTP requests being answered.")?,
            http_connections: IntGauge::new("kata_pulse_http_connections", "Connections of HTTP clients.")?,
            http_connections_closed: IntCounterVec::new(
                Opts::new(
                    "kata_pulse_http_connections_closed_total",
                    "Connections closed to make room (full), or because the client did not read its answer (unread).",
                ),
                &["reason"],
            )?,
            reload_successful: IntGauge::new(
                "kata_pulse_config_last_reload_successful",
                "Whether the last reload of the configuration and of the web configuration was taken.",
            )?,
            not_taken: Default::default(),
            reload_time: Gauge::new(
                "kata_pulse_config_last_reload_success_timestamp_seconds",
                "When the running configuration was taken, Unix time.",
            )?,
            collections: IntCounter::new("kata_pulse_collections_total", "Collections made, for whatever reason.")?,
            passthrough_dropped: IntCounter::new(
                "kata_pulse_passthrough_samples_dropped_total",
                "Samples of Kata shims that /metrics/kata did not pass on: malformed, twice, or too many.",
            )?,
            sandbox_scrapes: IntCounter::new(
                "kata_pulse_sandbox_scrapes_total",
                "Kata sandboxes that were to be measured, counted in every collection.",
            )?,
            sandbox_scrape_failures: IntCounterVec::new(
                Opts::new(
                    "kata_pulse_sandbox_scrape_failures_total",
                    "Kata sandboxes that were not measured in full, counted in every collection.",
                ),
                &["reason"],
            )?,
            monitor: Monitor::new()?,
            registry,
        };
        for reason in ["full", "unread"] {
            telemetry.http_connections_closed.with_label_values(&[reason]);
        }
        let build = GaugeVec::new(
            Opts::new("kata_pulse_build_info", "Version and build of this agent; always 1."),
            &["version", "revision", "rustversion", "os", "arch"],
        )?;
        build
            .with_label_values(&[
                env!("CARGO_PKG_VERSION"),
                env!("KATA_PULSE_REVISION"),
                env!("KATA_PULSE_RUSTC"),
                std::env::consts::OS,
                std::env::consts::ARCH,
            ])
            .set(1.0);
        telemetry.registry.register(Box::new(build))?;
        telemetry.registry.register(Box::new(process::ProcessMetrics::new()?))?;
        for collector in telemetry.always() {
            telemetry.registry.register(collector)?;
        }
        Ok(telemetry)
    }

    /// What is served from the start.
    fn always(&self) -> [Box<dyn Collector>; 10] {
        [
            Box::new(self.http_requests.clone()),
            Box::new(self.http_in_flight.clone()),
            Box::new(self.http_connections.clone()),
            Box::new(self.http_connections_closed.clone()),
            Box::new(self.reload_successful.clone()),
            Box::new(self.reload_time.clone()),
            Box::new(self.collections.clone()),
            Box::new(self.passthrough_dropped.clone()),
            Box::new(self.sandbox_scrapes.clone()),
            Box::new(self.sandbox_scrape_failures.clone()),
        ]
    }

    /// What is served once there is a container runtime to ask.
    fn of_cri(&self) -> [Box<dyn Collector>; 3] {
        [Box::new(self.cri_up.clone()), Box::new(self.cri_request_duration.clone()), Box::new(self.cri_errors.clone())]
    }

    /// Every family that is counted here, sorted by name; the build's and the process's own are not.
    pub fn described(&self) -> Vec<Described> {
        let collectors = self.always().into_iter().chain(self.of_cri());
        let mut all: Vec<Described> = collectors.flat_map(|collector| describe(&*collector)).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    /// Notes whether the reload of a part was taken.
    pub fn note_reload(&self, part: Part, taken: bool) {
        self.not_taken[part as usize].store(!taken, Ordering::Relaxed);
        let all = self.not_taken.iter().all(|not_taken| !not_taken.load(Ordering::Relaxed));
        self.reload_successful.set(i64::from(all));
    }

    /// Serves what is counted about the container runtime from now on. Without a runtime to ask there is nothing to
    /// say: a 0 would read as a runtime that is down.
    pub fn serve_cri(&self) {
        for collector in self.of_cri() {
            // Registered already by the configuration before a reload: that is fine.
            let _ = self.registry.register(collector);
        }
    }

    /// Everything counted so far, families sorted by name.
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }
}
