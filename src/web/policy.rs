//! A web configuration with all files that it names, read and checked as a whole: what is in force between two reloads.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ring::digest::{Context, SHA256};
use rustls::ServerConfig;

use super::file::{self, WebFile, shortened};
use super::password::Users;
use super::rate::Bucket;
use super::tls::{self, Material};

/// Largest file read. Certificate chains are some KiB.
const MAX_FILE: u64 = 1 << 20;

/// Headers that may be added to responses, with the values that they may have; no values for any.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
];

/// What is in force.
#[derive(Debug, Default)]
pub struct Policy {
    /// TLS; `None` for plain HTTP.
    pub tls: Option<Arc<ServerConfig>>,
    /// Headers of every response.
    pub headers: Vec<(&'static str, String)>,
    /// Users with passwords; `None` if there are none.
    pub users: Option<Users>,
    rate: Option<Mutex<Bucket>>,
    /// HTTP/2 was asked for by name.
    pub http2_wanted: bool,
}

impl Policy {
    /// Whether the limit of requests lets one more pass.
    pub fn within_rate(&self) -> bool {
        let Some(bucket) = &self.rate else { return true };
        bucket.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now())
    }
}

/// A web configuration that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A file cannot be read.
    #[error("{key} {path}")]
    Read {
        /// Who names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The content makes no sense.
    #[error("web configuration {path}: {problem}")]
    Content {
        /// The configuration.
        path: PathBuf,
        /// What and where; never what stands there.
        problem: String,
    },
}

/// Everything read from the disk, before anybody looks at what it means.
pub struct Texts {
    config: Vec<u8>,
    /// The configuration and its files by content: equal when nothing has changed.
    pub digest: [u8; 32],
    parsed: Result<(WebFile, Material), PolicyError>,
}

/// Reads the configuration and the files that it names.
pub fn read(path: &Path) -> Result<Texts, PolicyError> {
    let config = read_file("web configuration", path)?;
    let parsed = file::parse(&config)
        .map_err(|problem| content(path, problem))
        .and_then(|file| read_material(&file, path).map(|material| (file, material)));
    let mut digest = Context::new(&SHA256);
    let mut add = |part: &[u8]| {
        digest.update(&part.len().to_be_bytes());
        digest.update(part);
    };
    add(&config);
    match &parsed {
        Ok((_, material)) => {
            add(&material.cert);
            add(&material.key);
            add(material.client_ca.as_deref().unwrap_or_default());
        }
        Err(error) => add(chain(error).as_bytes()),
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.finish().as_ref());
    Ok(Texts { config, digest: bytes, parsed })
}

/// An error with its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

fn content(path: &Path, problem: impl Into<String>) -> PolicyError {
    PolicyError::Content { path: path.to_owned(), problem: problem.into() }
}

fn read_file(key: &'static str, path: &Path) -> Result<Vec<u8>, PolicyError> {
    let failed = |source| PolicyError::Read { key, path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(failed(std::io::Error::other("larger than 1 MiB")));
    }
    Ok(bytes)
}

/// The PEM texts, from where each of them is.
fn read_material(file: &WebFile, config: &Path) -> Result<Material, PolicyError> {
    let section = &file.tls_server_config;
    let directory = config.parent().unwrap_or(Path::new(""));
    let one = |key, file_key, inline: &str, path: &Path| -> Result<Option<Vec<u8>>, PolicyError> {
        match (inline.is_empty(), path.as_os_str().is_empty()) {
            (false, false) => Err(content(config, format!("tls_server_config: both {key} and {file_key}"))),
            (false, true) => Ok(Some(inline.as_bytes().to_vec())),
            (true, false) if is_pem(path) => Err(content(
                config,
                format!("tls_server_config.{file_key}: this is PEM and no path; it belongs to {key}"),
            )),
            (true, false) => read_file(file_key, &directory.join(path)).map(Some),
            (true, true) => Ok(None),
        }
    };
    let cert = one("cert", "cert_file", &section.cert, &section.cert_file)?;
    let key = one("key", "key_file", section.key.expose(), &section.key_file)?;
    let client_ca = one("client_ca", "client_ca_file", &section.client_ca, &section.client_ca_file)?;
    if section.wants_tls() {
        let missing = |what| content(config, format!("tls_server_config: neither {what} nor {what}_file"));
        let (cert, key) = (cert.ok_or_else(|| missing("cert"))?, key.ok_or_else(|| missing("key"))?);
        return Ok(Material { cert, key, client_ca });
    }
    if *section != file::TlsSection::default() {
        // exporter-toolkit takes this for no TLS at all. Whoever wrote it meant something else.
        return Err(content(config, "tls_server_config: neither cert nor cert_file"));
    }
    Ok(Material { cert: Vec::new(), key: Vec::new(), client_ca: None })
}

/// Whether somebody has put a certificate or a key where its path belongs. It must not get into an error as a path does.
fn is_pem(path: &Path) -> bool {
    path.to_string_lossy().contains("-----BEGIN")
}

impl Texts {
    /// Makes sense of everything, or of nothing.
    pub fn into_policy(self, path: &Path) -> Result<Policy, PolicyError> {
        let (file, material) = self.parsed?;
        let wrong = |section: &str, problem: String| content(path, format!("{section}: {problem}"));
        let tls = if file.tls_server_config.wants_tls() {
            let config = tls::server_config(&file.tls_server_config, &material);
            Some(Arc::new(config.map_err(|problem| wrong("tls_server_config", problem))?))
        } else {
            None
        };
        let users = if file.basic_auth_users.is_empty() {
            None
        } else {
            Some(Users::new(&file.basic_auth_users).map_err(|problem| wrong("basic_auth_users", problem))?)
        };
        let headers = file.http_server_config.headers.iter();
        let headers = headers.filter_map(|(name, value)| header(name, value).transpose()).collect::<Result<_, _>>();
        let rate = rate(file.rate_limit.interval.0, file.rate_limit.burst);
        Ok(Policy {
            tls,
            headers: headers.map_err(|problem| wrong("http_server_config.headers", problem))?,
            users,
            rate: rate.map_err(|problem| wrong("rate_limit", problem))?,
            http2_wanted: file.http_server_config.http2 == Some(true),
        })
    }

    /// Whether TLS is asked for, without a look at certificate and key.
    pub fn wants_tls(&self) -> bool {
        file::parse(&self.config).is_ok_and(|file| file.tls_server_config.wants_tls())
    }
}

/// A header that may be set; `None` if it is blank, which unsets it.
fn header(name: &str, value: &str) -> Result<Option<(&'static str, String)>, String> {
    let Some((name, values)) = HEADERS.iter().find(|(known, _)| *known == name) else {
        let known = HEADERS.map(|(known, _)| known).join(", ");
        return Err(format!("{:?} cannot be set, only {known}", shortened(name)));
    };
    if !values.is_empty() && !values.contains(&value) {
        return Err(format!("{name}: must be {}", values.join(" or ")));
    }
    if !value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err(format!("{name}: only printable ASCII can be sent"));
    }
    Ok((!value.is_empty()).then(|| (*name, value.to_owned())))
}

fn rate(interval: Duration, burst: u32) -> Result<Option<Mutex<Bucket>>, String> {
    if interval.is_zero() {
        return Ok(None);
    }
    if burst == 0 {
        return Err("burst must be at least 1, or nothing would ever pass".to_owned());
    }
    Ok(Some(Mutex::new(Bucket::new(interval, burst, Instant::now()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Result<Policy, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.yaml");
        std::fs::write(&path, text).unwrap();
        let shown = format!("{}/", directory.path().display());
        read(&path).and_then(|texts| texts.into_policy(&path)).map_err(|error| chain(&error).replace(&shown, ""))
    }

    #[test]
    fn headers_are_those_on_the_list() {
        let headers = |text: &str| policy(&format!("http_server_config:\n  headers:\n    {text}\n"));
        let set =
            headers("X-Frame-Options: deny\n    X-XSS-Protection: ''\n    Content-Security-Policy: default-src 'self'");
        let expected =
            [("Content-Security-Policy", "default-src 'self'".to_owned()), ("X-Frame-Options", "deny".into())];
        assert_eq!(set.unwrap().headers, expected);
        for (text, problem) in [
            ("Set-Cookie: a", "\"Set-Cookie\" cannot be set, only Content-Security-Policy, "),
            ("x-frame-options: deny", "\"x-frame-options\" cannot be set"),
            (&format!("{}: deny", "A1b2".repeat(30)), "\"A1b2A1b2...\" cannot be set"),
            ("X-Frame-Options: ALLOW", "X-Frame-Options: must be deny or sameorigin"),
            ("X-Content-Type-Options: ''", "X-Content-Type-Options: must be nosniff"),
            ("X-XSS-Protection: \"1\\r\\nSet-Cookie: a\"", "X-XSS-Protection: only printable ASCII can be sent"),
        ] {
            let error = headers(text).unwrap_err();
            assert!(
                error.starts_with(&format!("web configuration web.yaml: http_server_config.headers: {problem}")),
                "{error}"
            );
        }
    }

    #[test]
    fn half_a_tls_section_is_an_error_and_not_plain_http() {
        for (text, problem) in [
            ("cert_file: a", "cert_file a: No such file"),
            ("key: x", "web configuration web.yaml: tls_server_config: neither cert nor cert_file"),
            (
                "{cert: x, key_file: \"-----BEGIN PRIVATE KEY-----\\nCANARY\"}",
                "web configuration web.yaml: tls_server_config.key_file: this is PEM and no path; it belongs to key",
            ),
            ("cert: x", "web configuration web.yaml: tls_server_config: neither key nor key_file"),
            ("min_version: TLS13", "web configuration web.yaml: tls_server_config: neither cert nor cert_file"),
            ("client_auth_type: RequireAnyClientCert", "web configuration web.yaml: tls_server_config: neither cert"),
            (
                "{cert: x, cert_file: y, key: z}",
                "web configuration web.yaml: tls_server_config: both cert and cert_file",
            ),
        ] {
            let error = policy(&format!("tls_server_config:\n  {text}\n")).unwrap_err();
            assert!(error.starts_with(problem) && !error.contains("CANARY"), "{text}: {error}");
        }
        assert!(policy("tls_server_config: {}\n").unwrap().tls.is_none());
    }

    #[test]
    fn a_rate_limit_lets_something_pass() {
        assert!(policy("rate_limit: {interval: 0}").unwrap().within_rate());
        assert!(
            policy("rate_limit: {interval: 1s}")
                .unwrap_err()
                .ends_with("rate_limit: burst must be at least 1, or nothing would ever pass")
        );
        let limited = policy("rate_limit: {interval: 1h, burst: 2}").unwrap();
        assert_eq!([1, 2, 3].map(|_| limited.within_rate()), [true, true, false]);
    }

    #[test]
    fn a_file_that_is_missing_or_huge_is_an_error() {
        let missing = read(Path::new("/nowhere/web.yaml")).map(|_| ()).unwrap_err();
        assert!(chain(&missing).starts_with("web configuration /nowhere/web.yaml: No such file"), "{missing}");
        let huge = policy(&"#\n".repeat(1 << 20)).unwrap_err();
        assert_eq!(huge, "web configuration web.yaml: larger than 1 MiB");
    }
}
