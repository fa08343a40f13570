//! Who may read what the agent serves: TLS, passwords, the Kubernetes API server's word, and a limit of requests.
//!
//! ```text
//!   file ─▶ policy ─▶ Web (reloads it) ─▶ listener: TLS handshake by tls + client_cert
//!                                    └──▶ every request: gate ─▶ password | kubernetes
//! ```
//!
//! Knows no route and no HTTP server: `expose::http` asks [`Web`] for the TLS configuration of a new connection and
//! [`Web::admit`] for each request. What may be read without credentials stands in [`HEALTH_PATHS`] and nowhere else;
//! everything else, known or not, needs them as soon as there are any.

pub mod client_cert;
pub mod credentials;
pub mod file;
pub mod kubernetes;
pub mod policy;
pub mod probe;
pub mod rate;
pub mod secret;
pub mod tls;

mod gate;
mod password;
mod remembered;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rustls::ServerConfig;

use crate::telemetry::{Part, Telemetry};
pub use gate::{Asked, HEALTH_PATHS, Refused};
use kubernetes::Reviewer;
use password::Verifier;
use policy::{Policy, PolicyError, Texts, chain};

/// How often the files are looked at, at most: when somebody connects or asks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a request waits for the files. A disk that hangs must not stop scrapes.
const LOOK_DEADLINE: Duration = Duration::from_secs(1);

/// How often files that have changed are read again until they stand still.
const READ_AGAIN: usize = 3;

/// How long they must do so.
const STILL_FOR: Duration = Duration::from_millis(50);

/// What is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The web configuration.
    pub file: Option<PathBuf>,
    /// TLS without a certificate.
    pub self_signed: bool,
    /// Ask the API server who may.
    pub kubernetes: Option<crate::kubernetes::Options>,
}

/// A web configuration that the agent cannot start with.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// The file or what it names.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Two sources of TLS.
    #[error("tls-self-signed: the web configuration has a certificate already")]
    TwoCertificates,
    /// No certificate could be made.
    #[error("tls-self-signed: {0}")]
    SelfSigned(String),
}

/// The web configuration in force, through reloads.
#[derive(Debug)]
pub struct Web {
    options: Options,
    current: RwLock<Arc<Policy>>,
    self_signed: Option<Arc<ServerConfig>>,
    /// Whether TLS is spoken. Never changes: a reload must not turn a listener from TLS to plain HTTP.
    is_tls: bool,
    verifier: Verifier,
    reviewer: Option<Reviewer>,
    look: Mutex<Look>,
    telemetry: Arc<Telemetry>,
}

/// The last look at the files.
#[derive(Debug)]
struct Look {
    at: Instant,
    /// What they held, whether it was taken or not.
    digest: Option<[u8; 32]>,
    /// Why they could not be read, if so.
    unreadable: Option<String>,
}

impl Web {
    /// Reads and checks everything. Without options there is plain HTTP for everybody.
    pub fn open(options: Options, telemetry: Arc<Telemetry>) -> Result<Self, WebError> {
        let (policy, digest) = match &options.file {
            Some(path) => {
                let texts = policy::read(path)?;
                let digest = texts.digest;
                (texts.into_policy(path)?, Some(digest))
            }
            None => (Policy::default(), None),
        };
        let self_signed = match (options.self_signed, &policy.tls) {
            (true, Some(_)) => return Err(WebError::TwoCertificates),
            (true, None) => Some(make_certificate()?),
            (false, _) => None,
        };
        let is_tls = policy.tls.is_some() || self_signed.is_some();
        Ok(Self {
            current: RwLock::new(Arc::new(policy)),
            self_signed,
            is_tls,
            verifier: Verifier::default(),
            reviewer: options.kubernetes.clone().map(Reviewer::new),
            look: Mutex::new(Look { at: Instant::now(), digest, unreadable: None }),
            options,
            telemetry,
        })
    }

    /// Says what is in force, and what about it is odd.
    pub fn announce(&self) {
        let policy = self.current();
        let (passwords, kubernetes) = (policy.users.is_some(), self.reviewer.is_some());
        tracing::info!(tls = self.is_tls, basic_auth = passwords, kubernetes_auth = kubernetes, "web security");
        if (passwords || kubernetes) && !self.is_tls {
            tracing::warn!("credentials are asked for over plain HTTP: anybody on the way can read them");
        }
        if policy.http2_wanted {
            tracing::info!("http2 is not spoken; clients that offer it use HTTP/1.1");
        }
    }

    /// Whether the listeners speak TLS.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Whether anything has to be looked at for a request at all.
    pub fn is_idle(&self) -> bool {
        self.options.file.is_none() && self.reviewer.is_none()
    }

    /// What TLS looks like for a connection that begins now; `None` for plain HTTP.
    pub async fn tls(self: &Arc<Self>) -> Option<Arc<ServerConfig>> {
        if let Some(config) = &self.self_signed {
            return Some(Arc::clone(config));
        }
        self.refresh().await;
        self.current().tls.clone()
    }

    fn current(&self) -> Arc<Policy> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes what the files hold now, if it is time to look at them.
    async fn refresh(self: &Arc<Self>) {
        if self.options.file.is_none() || !self.is_due() {
            return;
        }
        let looking = tokio::task::spawn_blocking({
            let web = Arc::clone(self);
            move || web.reload()
        });
        if tokio::time::timeout(LOOK_DEADLINE, looking).await.is_err() {
            tracing::debug!("reading the web configuration takes long, the old one stays meanwhile");
        }
    }

    /// Whether it is time to look, which it is for one caller only.
    fn is_due(&self) -> bool {
        let mut look = self.look();
        let due = look.at.elapsed() >= LOOK_EVERY;
        if due {
            look.at = Instant::now();
        }
        due
    }

    fn look(&self) -> MutexGuard<'_, Look> {
        self.look.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the files hold now, if they hold something else than at the last look and it is good. Blocks.
    pub fn reload(&self) {
        let Some(path) = &self.options.file else { return };
        let held = self.look().digest;
        let read = read_at_rest(path, held);
        let mut look = self.look();
        look.at = Instant::now();
        let taken = match read {
            Err(error) => {
                let problem = chain(&error);
                if look.unreadable.as_ref() == Some(&problem) {
                    return;
                }
                look.unreadable = Some(problem.clone());
                look.digest = None;
                Err(problem)
            }
            Ok(texts) if look.digest == Some(texts.digest) => return,
            Ok(texts) => {
                look.unreadable = None;
                look.digest = Some(texts.digest);
                texts.into_policy(path).map_err(|error| chain(&error)).and_then(|policy| self.take(policy))
            }
        };
        self.telemetry.note_reload(Part::Web, taken.is_ok());
        match taken {
            Ok(()) => {
                tracing::info!("web configuration reloaded");
                self.announce();
            }
            Err(error) => tracing::warn!(error, "web configuration not reloaded, the old one stays"),
        }
    }

    fn take(&self, policy: Policy) -> Result<(), String> {
        let from_file = self.self_signed.is_none();
        if from_file && policy.tls.is_some() != self.is_tls {
            return Err("tls_server_config came or went, which needs a restart".to_owned());
        }
        if !from_file && policy.tls.is_some() {
            return Err(WebError::TwoCertificates.to_string());
        }
        if self.current().users.is_some() && policy.users.is_none() {
            // A file that is being written may be empty for a moment, which must not open the door.
            return Err("basic_auth_users went, which needs a restart".to_owned());
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
        Ok(())
    }
}

/// Reads files until they stand still: between certificate and key their directory may have been replaced, and half of a
/// configuration may ask for less than all of it.
fn read_at_rest(path: &Path, held: Option<[u8; 32]>) -> Result<Texts, PolicyError> {
    let mut texts = policy::read(path)?;
    if held == Some(texts.digest) {
        return Ok(texts);
    }
    for _ in 0..READ_AGAIN {
        std::thread::sleep(STILL_FOR);
        let again = policy::read(path)?;
        let rests = again.digest == texts.digest;
        texts = again;
        if rests {
            break;
        }
    }
    Ok(texts)
}

fn make_certificate() -> Result<Arc<ServerConfig>, WebError> {
    let (config, fingerprint) = tls::self_signed().map_err(WebError::SelfSigned)?;
    tracing::info!(sha256 = fingerprint, "certificate made, signed by itself");
    Ok(Arc::new(config))
}

/// Checks a web configuration with everything that it names.
pub fn check(options: &Options) -> Result<(), WebError> {
    let Some(path) = &options.file else { return Ok(()) };
    let policy = policy::read(path)?.into_policy(path)?;
    if options.self_signed && policy.tls.is_some() {
        return Err(WebError::TwoCertificates);
    }
    Ok(())
}

/// Whether the agent with these options speaks TLS.
pub fn wants_tls(options: &Options) -> Result<bool, WebError> {
    let Some(path) = &options.file else { return Ok(options.self_signed) };
    Ok(options.self_signed || policy::read(path)?.wants_tls())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn web(path: &Path) -> (Web, Arc<Telemetry>) {
        let telemetry = Arc::new(Telemetry::new().unwrap());
        telemetry.reload_successful.set(1);
        let options = Options { file: Some(path.to_owned()), ..Options::default() };
        (Web::open(options, Arc::clone(&telemetry)).unwrap(), telemetry)
    }

    fn header(web: &Web) -> String {
        web.current().headers.first().map(|(_, value)| value.clone()).unwrap_or_default()
    }

    fn with_header(value: &str) -> String {
        format!("http_server_config: {{headers: {{X-Frame-Options: {value}}}}}\n")
    }

    #[test]
    fn a_bad_file_keeps_the_old_one_until_a_good_one_comes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.yaml");
        fs::write(&path, with_header("deny")).unwrap();
        let (web, telemetry) = web(&path);
        for bad in [Some("nonsense: 1\n".to_owned()), None, Some(with_header("ALLOW"))] {
            match bad {
                Some(text) => fs::write(&path, text).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            for _ in 0..2 {
                web.reload();
                assert_eq!((header(&web).as_str(), telemetry.reload_successful.get()), ("deny", 0));
            }
        }
        fs::write(&path, with_header("sameorigin")).unwrap();
        web.reload();
        assert_eq!((header(&web).as_str(), telemetry.reload_successful.get()), ("sameorigin", 1));
    }

    #[test]
    fn the_old_content_back_again_is_good_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.yaml");
        fs::write(&path, with_header("deny")).unwrap();
        let (web, telemetry) = web(&path);
        fs::write(&path, "nonsense: 1\n").unwrap();
        web.reload();
        fs::write(&path, with_header("deny")).unwrap();
        web.reload();
        assert_eq!(telemetry.reload_successful.get(), 1);
    }

    #[test]
    fn a_reload_never_takes_the_last_password_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.yaml");
        let with_user = |name: &str| format!("basic_auth_users: {{{name}: '{}'}}\n", bcrypt::hash("x", 4).unwrap());
        fs::write(&path, "").unwrap();
        let (web, telemetry) = web(&path);
        fs::write(&path, with_user("alice")).unwrap();
        web.reload();
        assert!(web.current().users.is_some() && telemetry.reload_successful.get() == 1);
        for gone in ["", "basic_auth_users:\n", "rate_limit: {interval: 0}\n"] {
            fs::write(&path, gone).unwrap();
            web.reload();
            assert!(web.current().users.is_some() && telemetry.reload_successful.get() == 0, "{gone:?}");
        }
        fs::write(&path, with_user("bob")).unwrap();
        web.reload();
        assert_eq!(telemetry.reload_successful.get(), 1);
    }

    #[test]
    fn a_reload_never_takes_tls_away_or_brings_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.yaml");
        let made = rcgen::generate_simple_self_signed(["node".to_owned()]).unwrap();
        fs::write(directory.path().join("crt"), pem_of(made.cert.der(), "CERTIFICATE")).unwrap();
        fs::write(directory.path().join("key"), pem_of(&made.signing_key.serialize_der(), "PRIVATE KEY")).unwrap();
        let secured = "tls_server_config: {cert_file: crt, key_file: key}\n";
        fs::write(&path, secured).unwrap();
        let (with_tls, telemetry) = web(&path);
        fs::write(&path, "").unwrap();
        with_tls.reload();
        assert!(with_tls.current().tls.is_some());
        assert_eq!(telemetry.reload_successful.get(), 0);
        let (plain, telemetry) = web(&path);
        fs::write(&path, secured).unwrap();
        plain.reload();
        assert!(plain.current().tls.is_none());
        assert_eq!(telemetry.reload_successful.get(), 0);
        let both = Options { file: Some(path.clone()), self_signed: true, kubernetes: None };
        assert!(matches!(check(&both), Err(WebError::TwoCertificates)));
        assert!(matches!(Web::open(both, telemetry), Err(WebError::TwoCertificates)));
    }

    fn pem_of(der: &[u8], what: &str) -> String {
        use base64::Engine;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {what}-----\n{text}\n-----END {what}-----\n")
    }
}
