//! What one place says: the flags and the environment, or the file.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::collect::kata::gate::ShimScrape;
use crate::expose::family::Profile;
use crate::log::Format as LogFormat;

/// Every setting as given in one place; `None` where that place says nothing.
#[derive(Args, Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// Address to serve on; may be repeated [default: 127.0.0.1:8090]
    #[arg(short, long, env = "KATA_PULSE_LISTEN", value_delimiter = ',', value_name = "HOST:PORT", global = true)]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "one_or_many")]
    pub listen_address: Option<Vec<String>>,

    /// CRI socket: a path, a unix:// URI, auto or none [default: auto]
    #[arg(short, long, env = "RUNTIME_ENDPOINT", value_name = "SOCKET", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_endpoint: Option<String>,

    /// 0 collects when scraped; N collects every N seconds in the background and serves the last result [default: 0]
    #[arg(short, long, env = "KATA_PULSE_METRICS_INTERVAL", value_name = "SECONDS", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_interval_secs: Option<f64>,

    /// A collection younger than this answers the next scrape [default: 1]
    #[arg(long, env = "KATA_PULSE_MAX_AGE", value_name = "SECONDS", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age_secs: Option<f64>,

    /// Time between full syncs with the container runtime [default: 5]
    #[arg(long, env = "KATA_PULSE_SYNC_INTERVAL", value_name = "SECONDS", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync_interval_secs: Option<f64>,

    /// error, warn, info, debug, trace, or a filter such as info,kata_pulse::discover=debug [default: info]
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,

    /// How log lines are written [default: logfmt]
    #[arg(long, env = "KATA_PULSE_LOG_FORMAT", value_name = "FORMAT", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,

    /// Prefix of the node's proc, sys, run and var/lib [default: /]
    #[arg(long, env = "KATA_PULSE_HOST_ROOT", value_name = "DIR", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_root: Option<PathBuf>,

    /// The node's procfs [default: proc under the host root]
    #[arg(long, env = "KATA_PULSE_PROCFS", value_name = "DIR", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub procfs: Option<PathBuf>,

    /// The cgroup mount point [default: sys/fs/cgroup under the host root]
    #[arg(long, env = "KATA_PULSE_CGROUPFS", value_name = "DIR", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroupfs: Option<PathBuf>,

    /// Where vc/sbs, kata and containerd lie [default: run under the host root]
    #[arg(long, env = "KATA_PULSE_RUN_DIR", value_name = "DIR", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_dir: Option<PathBuf>,

    /// Directory that holds io.containerd.runtime.v2.task [default: containerd or k3s/containerd under the run directory]
    #[arg(long, env = "KATA_PULSE_CONTAINERD_STATE", value_name = "DIR", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub containerd_state: Option<PathBuf>,

    /// The kubelet's directory, in which pods' volumes are [default: var/lib/kubelet under the host root]
    #[arg(long, env = "KATA_PULSE_KUBELET_DIR", value_name = "DIR", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubelet_dir: Option<PathBuf>,

    /// Which shims may be asked for metrics: off, safe (those known to survive it) or all [default: safe]
    #[arg(long, env = "KATA_PULSE_SHIM_SCRAPE", value_name = "WHICH", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shim_scrape: Option<ShimScrape>,

    /// Which pods get rows: all, or kata beside a kubelet that serves the rest [default: all]
    #[arg(long, env = "KATA_PULSE_SCOPE", value_name = "SCOPE", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<ScopeName>,

    /// Collectors to switch on; see `kata-pulse collectors`
    #[arg(long, env = "KATA_PULSE_ENABLE_COLLECTORS", value_delimiter = ',', value_name = "NAMES", global = true)]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "one_or_many")]
    pub enable_collectors: Option<Vec<String>>,

    /// Collectors to switch off
    #[arg(long, env = "KATA_PULSE_DISABLE_COLLECTORS", value_delimiter = ',', value_name = "NAMES", global = true)]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "one_or_many")]
    pub disable_collectors: Option<Vec<String>>,

    /// Interfaces without container_network_* samples, a regular expression such as ^(cali|lxc)
    #[arg(long, env = "KATA_PULSE_EXCLUDE_INTERFACES", value_name = "REGEX", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude_interfaces: Option<String>,

    /// Interfaces that the node collector leaves out, such as ^(veth|cali|lxc)
    #[arg(long, env = "KATA_PULSE_NODE_EXCLUDE_INTERFACES", value_name = "REGEX", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_exclude_interfaces: Option<String>,

    /// Block devices that the node collector leaves out [default: partitions, floppies, loop and RAM devices]
    #[arg(long, env = "KATA_PULSE_NODE_EXCLUDE_DISKS", value_name = "REGEX", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_exclude_disks: Option<String>,

    /// Mount points that the node collector leaves out [default: /dev, /proc, /sys and what container engines mount]
    #[arg(long, env = "KATA_PULSE_NODE_EXCLUDE_MOUNTS", value_name = "REGEX", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_exclude_mounts: Option<String>,

    /// Types of filesystems that the node collector leaves out [default: those that hold no files of users]
    #[arg(long, env = "KATA_PULSE_NODE_EXCLUDE_FILESYSTEMS", value_name = "REGEX", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_exclude_filesystems: Option<String>,

    /// How much is served: dashboards, kubelet or all [default: kubelet]
    #[arg(long, env = "KATA_PULSE_METRICS_PROFILE", value_name = "PROFILE", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_profile: Option<Profile>,

    /// TLS, basic authentication, headers and rate limit, in the format of prometheus/exporter-toolkit
    #[arg(long, env = "KATA_PULSE_WEB_CONFIG", value_name = "FILE", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub web_config: Option<PathBuf>,

    /// Serve over TLS with a certificate made at start
    #[arg(long, env = "KATA_PULSE_TLS_SELF_SIGNED", value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_self_signed: Option<bool>,

    /// Ask the Kubernetes API server who a bearer token is and what they may read
    #[arg(long, env = "KATA_PULSE_AUTH_KUBERNETES", value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_kubernetes: Option<bool>,

    /// Ask the Kubernetes API server which claims volumes belong to
    #[arg(long, env = "KATA_PULSE_VOLUME_CLAIMS", value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_claims: Option<bool>,

    /// Where the agent's own token and the cluster's CA are [default: /var/run/secrets/kubernetes.io/serviceaccount]
    #[arg(long, env = "KATA_PULSE_SERVICE_ACCOUNT_DIR", value_name = "DIR", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account_dir: Option<PathBuf>,

    /// Address to serve health on as well, plain and nothing else; 8091 is the usual port
    #[arg(long, env = "KATA_PULSE_HEALTH_LISTEN", value_name = "HOST:PORT", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_listen_address: Option<String>,
}

/// [`Scope`](crate::discover::assemble::Scope) by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ScopeName {
    /// Every pod and the node.
    All,
    /// Kata pods only.
    Kata,
}

/// A list, or a single text with commas: what a flag and an environment variable accept too.
fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(Option::<OneOrMany>::deserialize(deserializer)?.map(|given| match given {
        OneOrMany::One(text) => text.split(',').map(|part| part.trim().to_owned()).collect(),
        OneOrMany::Many(list) => list,
    }))
}

impl Settings {
    /// Reads a YAML file. An empty file says nothing.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::from_yaml(&text).map_err(|problem| ConfigError::Parse { path: path.to_owned(), problem })
    }

    /// Reads the text of such a file. The error is one line with the place.
    pub fn from_yaml(text: &str) -> Result<Self, String> {
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(text).map_err(|error| one_line(&error))
    }

    /// These settings where they say something, else those of `lesser`.
    #[must_use]
    pub fn over(self, lesser: Self) -> Self {
        Self {
            listen_address: self.listen_address.or(lesser.listen_address),
            runtime_endpoint: self.runtime_endpoint.or(lesser.runtime_endpoint),
            metrics_interval_secs: self.metrics_interval_secs.or(lesser.metrics_interval_secs),
            max_age_secs: self.max_age_secs.or(lesser.max_age_secs),
            sync_interval_secs: self.sync_interval_secs.or(lesser.sync_interval_secs),
            log_level: self.log_level.or(lesser.log_level),
            log_format: self.log_format.or(lesser.log_format),
            host_root: self.host_root.or(lesser.host_root),
            procfs: self.procfs.or(lesser.procfs),
            cgroupfs: self.cgroupfs.or(lesser.cgroupfs),
            run_dir: self.run_dir.or(lesser.run_dir),
            containerd_state: self.containerd_state.or(lesser.containerd_state),
            kubelet_dir: self.kubelet_dir.or(lesser.kubelet_dir),
            shim_scrape: self.shim_scrape.or(lesser.shim_scrape),
            scope: self.scope.or(lesser.scope),
            enable_collectors: self.enable_collectors.or(lesser.enable_collectors),
            disable_collectors: self.disable_collectors.or(lesser.disable_collectors),
            exclude_interfaces: self.exclude_interfaces.or(lesser.exclude_interfaces),
            node_exclude_interfaces: self.node_exclude_interfaces.or(lesser.node_exclude_interfaces),
            node_exclude_disks: self.node_exclude_disks.or(lesser.node_exclude_disks),
            node_exclude_mounts: self.node_exclude_mounts.or(lesser.node_exclude_mounts),
            node_exclude_filesystems: self.node_exclude_filesystems.or(lesser.node_exclude_filesystems),
            metrics_profile: self.metrics_profile.or(lesser.metrics_profile),
            web_config: self.web_config.or(lesser.web_config),
            tls_self_signed: self.tls_self_signed.or(lesser.tls_self_signed),
            auth_kubernetes: self.auth_kubernetes.or(lesser.auth_kubernetes),
            volume_claims: self.volume_claims.or(lesser.volume_claims),
            service_account_dir: self.service_account_dir.or(lesser.service_account_dir),
            health_listen_address: self.health_listen_address.or(lesser.health_listen_address),
        }
    }
}

/// A parse error's first line and place: the library adds a picture of the file below, which does not fit a log line.
fn one_line(error: &serde_saphyr::Error) -> String {
    let place = error.location().map(|at| format!("line {}, column {}: ", at.line(), at.column())).unwrap_or_default();
    let text = error.without_snippet().to_string();
    let first = text.lines().next().unwrap_or_default().trim();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    // Some messages end in the place as well.
    let first = first.split_once(" at line ").map_or(first, |(message, _)| message);
    format!("{place}{first}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn file(text: &str) -> Result<Settings, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.yaml");
        std::fs::write(&path, text).unwrap();
        Settings::from_file(&path)
    }

    #[test]
    fn what_says_something_wins_over_what_does_not() {
        let flags = Settings { max_age_secs: Some(3.0), ..Settings::default() };
        let file = Settings { max_age_secs: Some(9.0), log_level: Some("debug".into()), ..Settings::default() };
        let merged = flags.over(file);
        assert_eq!(merged.max_age_secs, Some(3.0));
        assert_eq!(merged.log_level.as_deref(), Some("debug"));
    }

    #[test]
    fn the_file_takes_lists_and_texts_and_names_the_line_of_what_it_does_not_know() {
        let settings =
            file("# comment\nlisten-address: 0.0.0.0:1,[::1]:2\nenable-collectors: [fd]\nscope: kata\n").unwrap();
        assert_eq!(settings.listen_address.unwrap(), ["0.0.0.0:1", "[::1]:2"]);
        assert_eq!(settings.scope, Some(ScopeName::Kata));
        let web = "web-config: /etc/web.yaml\ntls-self-signed: true\nauth-kubernetes: true\n\
                   service-account-dir: /sa\nhealth-listen-address: 127.0.0.1:8091\n";
        let config = Config::new(file(web).unwrap()).unwrap();
        assert_eq!(config.web_config.as_deref(), Some(Path::new("/etc/web.yaml")));
        assert!(config.tls_self_signed && config.auth_kubernetes);
        assert_eq!(config.service_account_dir, Path::new("/sa"));
        assert_eq!(config.health_listen.as_deref(), Some("127.0.0.1:8091"));
        assert!(file("").is_ok() && file("# only a comment\n").is_ok());
        let unknown = file("max-age-secs: 1\nmax-age-sec: 2\n").unwrap_err().to_string();
        assert!(unknown.contains("line 2") && unknown.contains("max-age-sec") && !unknown.contains('\n'), "{unknown}");
        let broken = file("scope: [kata\n").unwrap_err().to_string();
        assert!(broken.contains("line ") && !broken.contains('\n'), "{broken}");
        let mistyped = file("log-level: info\nmax-age-secs: soon\n").unwrap_err().to_string();
        assert!(mistyped.contains("line 2"), "{mistyped}");
    }
}
