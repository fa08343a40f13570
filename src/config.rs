//! Flags, environment and YAML file to one validated [`Config`].
//!
//! A setting has one name in all three places: flag `--max-age-secs`, YAML key `max-age-secs`, and an environment
//! variable. The flag wins, then the environment, then the file, then the default.

mod settings;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::collect::exclude::Exclude;
use crate::collect::kata::gate::ShimScrape;
use crate::collect::{COLLECTORS, Description, node};
use crate::cri::{RuntimeEndpoint, WELL_KNOWN_SOCKETS};
use crate::discover::assemble::Scope;
use crate::expose::family::Profile;
use crate::kubernetes;
use crate::log::Format as LogFormat;
use crate::web;
pub use settings::{ScopeName, Settings};

/// Where the agent listens when nobody says otherwise.
const DEFAULT_LISTEN: &str = "127.0.0.1:8090";

/// Where Kubernetes mounts what a pod needs to talk to the API server.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A setting that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not YAML, or has a key or value that is not known.
    #[error("configuration {path}: {problem}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What and where, with the line.
        problem: String,
    },
    /// A value makes no sense.
    #[error("{setting}: {problem}")]
    Value {
        /// The setting's name.
        setting: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
}

/// The settings in force.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses to serve on, `host:port`.
    pub listen: Vec<String>,
    /// Where the runtime is.
    pub runtime_endpoint: RuntimeEndpoint,
    /// Log filter.
    pub log_level: String,
    /// Log format.
    pub log_format: LogFormat,
    /// The node's root.
    pub host_root: PathBuf,
    /// The node's procfs.
    pub procfs: PathBuf,
    /// The node's sysfs.
    pub sysfs: PathBuf,
    /// The cgroup mount point.
    pub cgroupfs: PathBuf,
    /// The node's run directory.
    pub run_dir: PathBuf,
    /// Where containerd keeps its state; `None` to look in the usual places.
    pub containerd_state: Option<PathBuf>,
    /// The kubelet's directory.
    pub kubelet_dir: PathBuf,
    /// Which shims may be asked for metrics.
    pub shim_scrape: ShimScrape,
    /// Which pods get rows.
    pub scope: Scope,
    /// Interfaces without container_network_* samples.
    pub exclude_interfaces: Exclude,
    /// What the node collector leaves out.
    pub node: node::Options,
    /// How much is served.
    pub metrics_profile: Profile,
    /// The web configuration.
    pub web_config: Option<PathBuf>,
    /// Whether TLS is spoken with a certificate made at start.
    pub tls_self_signed: bool,
    /// Whether the Kubernetes API server is asked about bearer tokens.
    pub auth_kubernetes: bool,
    /// Where the agent's own token and the cluster's CA are.
    pub service_account_dir: PathBuf,
    /// Where health is served as well.
    pub health_listen: Option<String>,
    claims: Option<kubernetes::Options>,
    collectors: Vec<&'static str>,
    interval: Option<Duration>,
    max_age: Duration,
    sync_interval: Duration,
}

impl Config {
    /// Validates settings and fills in defaults.
    pub fn new(settings: Settings) -> Result<Self, ConfigError> {
        let host_root = settings.host_root.unwrap_or_else(|| PathBuf::from("/"));
        let collectors =
            enabled_collectors(settings.enable_collectors.as_deref(), settings.disable_collectors.as_deref())?;
        let interval = seconds("metrics-interval-secs", settings.metrics_interval_secs, 0.0)?;
        let sync_interval = seconds("sync-interval-secs", settings.sync_interval_secs, 5.0)?;
        if sync_interval < Duration::from_millis(500) {
            return Err(value("sync-interval-secs", "must be at least 0.5"));
        }
        let listen = settings.listen_address.unwrap_or_else(|| vec![DEFAULT_LISTEN.to_owned()]);
        for address in &listen {
            check_address("listen-address", address)?;
        }
        // An empty variable of the environment says no address.
        let health_listen = settings.health_listen_address.filter(|address| !address.is_empty());
        if let Some(address) = &health_listen {
            check_address("health-listen-address", address)?;
        }
        let service_account_dir = settings.service_account_dir.unwrap_or_else(|| PathBuf::from(SERVICE_ACCOUNT));
        let log_level = settings.log_level.unwrap_or_else(|| "info".to_owned());
        crate::log::check_filter(&log_level).map_err(|problem| value("log-level", problem))?;
        Ok(Self {
            listen,
            runtime_endpoint: endpoint(settings.runtime_endpoint.as_deref().unwrap_or("auto"), &host_root)?,
            log_level,
            log_format: settings.log_format.unwrap_or_default(),
            procfs: settings.procfs.unwrap_or_else(|| host_root.join("proc")),
            sysfs: host_root.join("sys"),
            cgroupfs: settings.cgroupfs.unwrap_or_else(|| host_root.join("sys/fs/cgroup")),
            run_dir: settings.run_dir.unwrap_or_else(|| host_root.join("run")),
            containerd_state: settings.containerd_state,
            kubelet_dir: settings.kubelet_dir.unwrap_or_else(|| host_root.join("var/lib/kubelet")),
            shim_scrape: settings.shim_scrape.unwrap_or_default(),
            scope: match settings.scope {
                Some(ScopeName::Kata) => Scope::Kata,
                Some(ScopeName::All) | None => Scope::All,
            },
            exclude_interfaces: exclude("exclude-interfaces", settings.exclude_interfaces, "")?,
            node: node::Options {
                interfaces: exclude("node-exclude-interfaces", settings.node_exclude_interfaces, "")?,
                disks: exclude("node-exclude-disks", settings.node_exclude_disks, node::DISKS)?,
                mounts: exclude("node-exclude-mounts", settings.node_exclude_mounts, node::MOUNTS)?,
                filesystems: exclude("node-exclude-filesystems", settings.node_exclude_filesystems, node::FILESYSTEMS)?,
            },
            metrics_profile: settings.metrics_profile.unwrap_or_default(),
            web_config: settings.web_config.filter(|path| !path.as_os_str().is_empty()),
            tls_self_signed: settings.tls_self_signed.unwrap_or(false),
            auth_kubernetes: settings.auth_kubernetes.unwrap_or(false),
            claims: if settings.volume_claims.unwrap_or(false) {
                Some(api_server("volume-claims", &service_account_dir)?)
            } else {
                None
            },
            service_account_dir,
            health_listen,
            collectors,
            interval: (interval > Duration::ZERO).then_some(interval),
            max_age: seconds("max-age-secs", settings.max_age_secs, 1.0)?,
            sync_interval,
            host_root,
        })
    }

    /// Names of the collectors that run.
    pub fn enabled_collectors(&self) -> Vec<&'static str> {
        self.collectors.clone()
    }

    /// Time between background collections; `None` to collect when scraped.
    pub fn metrics_interval(&self) -> Option<Duration> {
        self.interval
    }

    /// How old a collection may be to answer a scrape.
    pub fn max_age(&self) -> Duration {
        self.max_age
    }

    /// Time between full syncs with the runtime.
    pub fn sync_interval(&self) -> Duration {
        self.sync_interval
    }

    /// Directories of the bundles of Kubernetes' containers.
    pub fn bundles(&self) -> Vec<PathBuf> {
        let state = match &self.containerd_state {
            Some(state) => vec![state.clone()],
            None => vec![self.run_dir.join("containerd"), self.run_dir.join("k3s/containerd")],
        };
        state.iter().map(|state| state.join("io.containerd.runtime.v2.task/k8s.io")).collect()
    }

    /// What web security is made of. The API server is where Kubernetes tells every pod that it is.
    pub fn web(&self) -> Result<web::Options, ConfigError> {
        let kubernetes =
            if self.auth_kubernetes { Some(api_server("auth-kubernetes", &self.service_account_dir)?) } else { None };
        Ok(web::Options { file: self.web_config.clone(), self_signed: self.tls_self_signed, kubernetes })
    }

    /// Whom to ask about claims, if anybody.
    pub fn claims(&self) -> Option<kubernetes::Options> {
        self.claims.clone()
    }

    /// The settings in force as YAML, every key present.
    pub fn to_yaml(&self) -> String {
        let settings = Settings {
            listen_address: Some(self.listen.clone()),
            runtime_endpoint: Some(self.runtime_endpoint.to_string()),
            metrics_interval_secs: Some(self.interval.unwrap_or_default().as_secs_f64()),
            max_age_secs: Some(self.max_age.as_secs_f64()),
            sync_interval_secs: Some(self.sync_interval.as_secs_f64()),
            log_level: Some(self.log_level.clone()),
            log_format: Some(self.log_format),
            host_root: Some(self.host_root.clone()),
            procfs: Some(self.procfs.clone()),
            cgroupfs: Some(self.cgroupfs.clone()),
            run_dir: Some(self.run_dir.clone()),
            containerd_state: self.containerd_state.clone(),
            kubelet_dir: Some(self.kubelet_dir.clone()),
            shim_scrape: Some(self.shim_scrape),
            scope: Some(match self.scope {
                Scope::All => ScopeName::All,
                Scope::Kata => ScopeName::Kata,
            }),
            enable_collectors: Some(self.collectors.iter().map(ToString::to_string).collect()),
            disable_collectors: Some(
                COLLECTORS
                    .iter()
                    .filter(|collector| !self.collectors.contains(&collector.name))
                    .map(|collector| collector.name.to_owned())
                    .collect(),
            ),
            exclude_interfaces: Some(self.exclude_interfaces.as_str().to_owned()),
            node_exclude_interfaces: Some(self.node.interfaces.as_str().to_owned()),
            node_exclude_disks: Some(self.node.disks.as_str().to_owned()),
            node_exclude_mounts: Some(self.node.mounts.as_str().to_owned()),
            node_exclude_filesystems: Some(self.node.filesystems.as_str().to_owned()),
            metrics_profile: Some(self.metrics_profile),
            web_config: self.web_config.clone(),
            tls_self_signed: Some(self.tls_self_signed),
            auth_kubernetes: Some(self.auth_kubernetes),
            volume_claims: Some(self.claims.is_some()),
            service_account_dir: Some(self.service_account_dir.clone()),
            health_listen_address: self.health_listen.clone(),
        };
        serde_saphyr::to_string(&settings).unwrap_or_default()
    }
}

fn api_server(setting: &'static str, service_account: &Path) -> Result<kubernetes::Options, ConfigError> {
    let named = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let outside = || value(setting, "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set");
    let host = named("KUBERNETES_SERVICE_HOST").ok_or_else(outside)?;
    let port = named("KUBERNETES_SERVICE_PORT").ok_or_else(outside)?;
    let port = port.parse().map_err(|_| value(setting, "KUBERNETES_SERVICE_PORT is not a port"))?;
    Ok(kubernetes::Options { host, port, service_account: service_account.to_owned() })
}

fn value(setting: &'static str, problem: impl ToString) -> ConfigError {
    ConfigError::Value { setting, problem: problem.to_string() }
}

fn seconds(setting: &'static str, given: Option<f64>, default: f64) -> Result<Duration, ConfigError> {
    let given = given.unwrap_or(default);
    match Duration::try_from_secs_f64(given) {
        Ok(duration) if given <= 86_400.0 => Ok(duration),
        _ => Err(value(setting, format!("{given} is not a number of seconds from 0 to 86400"))),
    }
}

fn exclude(setting: &'static str, given: Option<String>, default: &str) -> Result<Exclude, ConfigError> {
    Exclude::new(given.as_deref().unwrap_or(default)).map_err(|problem| value(setting, problem))
}

fn check_address(setting: &'static str, address: &str) -> Result<(), ConfigError> {
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(_)) => Ok(()),
        _ => Err(value(setting, format!("{address:?} is not HOST:PORT"))),
    }
}

fn endpoint(given: &str, host_root: &Path) -> Result<RuntimeEndpoint, ConfigError> {
    match given {
        "none" => Ok(RuntimeEndpoint::None),
        "auto" => Ok(RuntimeEndpoint::Probe(WELL_KNOWN_SOCKETS.iter().map(|path| host_root.join(path)).collect())),
        _ => {
            let path = given.strip_prefix("unix://").unwrap_or(given);
            if path.starts_with('/') {
                return Ok(RuntimeEndpoint::Socket(PathBuf::from(path)));
            }
            Err(value(
                "runtime-endpoint",
                format!("{given:?} is neither an absolute path, a unix:// URI, auto nor none"),
            ))
        }
    }
}

fn enabled_collectors(enable: Option<&[String]>, disable: Option<&[String]>) -> Result<Vec<&'static str>, ConfigError> {
    let names = |setting: &'static str, given: Option<&[String]>| -> Result<Vec<String>, ConfigError> {
        let given: Vec<String> = given.unwrap_or_default().iter().filter(|name| !name.is_empty()).cloned().collect();
        match given.iter().find(|name| !COLLECTORS.iter().any(|collector| collector.name == **name)) {
            Some(unknown) => {
                let known: Vec<&str> = COLLECTORS.iter().map(|collector| collector.name).collect();
                Err(value(setting, format!("no collector {unknown:?}; there are {}", known.join(", "))))
            }
            None => Ok(given),
        }
    };
    let enable = names("enable-collectors", enable)?;
    let disable = names("disable-collectors", disable)?;
    if let Some(both) = enable.iter().find(|name| disable.contains(name)) {
        return Err(value("enable-collectors", format!("{both:?} is disabled as well")));
    }
    let on = |collector: &&Description| {
        let named = |list: &[String]| list.iter().any(|name| name == collector.name);
        (collector.default || named(&enable)) && !named(&disable)
    };
    Ok(COLLECTORS.iter().filter(on).map(|collector| collector.name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(settings: Settings) -> String {
        Config::new(settings).unwrap_err().to_string()
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let config = Config::new(Settings::default()).unwrap();
        assert_eq!(config.listen, ["127.0.0.1:8090"]);
        assert_eq!(config.max_age(), Duration::from_secs(1));
        assert_eq!(config.metrics_interval(), None);
        assert_eq!(config.enabled_collectors(), ["cgroup", "network", "process", "filesystem", "kata", "machine"]);
        assert_eq!(config.cgroupfs, Path::new("/sys/fs/cgroup"));
        assert!(matches!(config.runtime_endpoint, RuntimeEndpoint::Probe(paths) if paths.len() == 4));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let with = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            problem(settings)
        };
        assert!(with(|s| s.listen_address = Some(vec!["8090".into()])).starts_with("listen-address: "));
        assert!(with(|s| s.listen_address = Some(vec!["a:99999".into()])).starts_with("listen-address: "));
        assert!(with(|s| s.health_listen_address = Some("8091".into())).starts_with("health-listen-address: "));
        assert!(with(|s| s.runtime_endpoint = Some("tcp://x".into())).starts_with("runtime-endpoint: "));
        assert!(with(|s| s.max_age_secs = Some(-1.0)).starts_with("max-age-secs: "));
        assert!(with(|s| s.max_age_secs = Some(f64::NAN)).starts_with("max-age-secs: "));
        assert!(with(|s| s.enable_collectors = Some(vec!["gpu".into()])).contains("cgroup, network"));
        assert!(with(|s| s.log_level = Some("loud".into())).starts_with("log-level: "));
        assert!(with(|s| s.node_exclude_mounts = Some("^/(".into())).starts_with("node-exclude-mounts: "));
    }
}
