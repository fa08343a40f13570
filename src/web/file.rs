//! The web configuration as text: the keys of prometheus/exporter-toolkit's file. Pure; nothing is opened here.
//!
//! ```yaml
//! tls_server_config: { cert_file: tls.crt, key_file: tls.key }
//! basic_auth_users: { alice: "$2y$10$..." }
//! ```
//!
//! The file holds secrets, so an error says where it is wrong and what would be right, and never what stands there.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use super::rate::parse_duration;
use super::secret::Secret;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebFile {
    /// TLS; without it the agent speaks plain HTTP.
    #[serde(deserialize_with = "or_default")]
    pub tls_server_config: TlsSection,
    /// The HTTP server.
    #[serde(deserialize_with = "or_default")]
    pub http_server_config: HttpSection,
    /// bcrypt hashes by user.
    #[serde(deserialize_with = "or_default")]
    pub basic_auth_users: BTreeMap<String, Secret>,
    /// Limit of requests.
    #[serde(deserialize_with = "or_default")]
    pub rate_limit: RateSection,
}

/// `tls_server_config`.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSection {
    /// Certificate chain, PEM.
    #[serde(deserialize_with = "or_default")]
    pub cert: String,
    /// Private key, PEM.
    #[serde(deserialize_with = "or_default")]
    pub key: Secret,
    /// Certificates that vouch for clients, PEM.
    #[serde(deserialize_with = "or_default")]
    pub client_ca: String,
    /// File of the certificate chain.
    #[serde(deserialize_with = "or_default")]
    pub cert_file: PathBuf,
    /// File of the private key.
    #[serde(deserialize_with = "or_default")]
    pub key_file: PathBuf,
    /// File of the certificates that vouch for clients.
    #[serde(deserialize_with = "or_default")]
    pub client_ca_file: PathBuf,
    /// What is asked of clients.
    #[serde(deserialize_with = "or_default")]
    pub client_auth_type: ClientAuthType,
    /// Names of which a client's certificate must have one.
    #[serde(deserialize_with = "or_default")]
    pub client_allowed_sans: Vec<String>,
    /// Oldest version spoken.
    #[serde(deserialize_with = "or_default")]
    pub min_version: Option<Version>,
    /// Newest version spoken.
    #[serde(deserialize_with = "or_default")]
    pub max_version: Option<Version>,
    /// Suites by Go's names.
    #[serde(deserialize_with = "or_default")]
    pub cipher_suites: Vec<String>,
    /// Whose order of suites counts; `None` for the server's.
    #[serde(deserialize_with = "or_default")]
    pub prefer_server_cipher_suites: Option<bool>,
    /// Key exchange groups by Go's names.
    #[serde(deserialize_with = "or_default")]
    pub curve_preferences: Vec<String>,
}

impl TlsSection {
    /// Whether anything in it asks for TLS, as exporter-toolkit decides it.
    pub fn wants_tls(&self) -> bool {
        !self.cert.is_empty()
            || !self.key.expose().is_empty()
            || !self.client_ca.is_empty()
            || !self.cert_file.as_os_str().is_empty()
            || !self.key_file.as_os_str().is_empty()
            || !self.client_ca_file.as_os_str().is_empty()
            || self.client_auth_type != ClientAuthType::NoClientCert
    }
}

/// `client_auth_type`, by the names of Go's crypto/tls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum ClientAuthType {
    /// Clients are not asked for a certificate.
    #[default]
    #[serde(alias = "")]
    NoClientCert,
    /// They are asked, and may show any or none.
    RequestClientCert,
    /// They must show some certificate, whoever made it.
    #[serde(alias = "RequireClientCert")]
    RequireAnyClientCert,
    /// They may show none; one that they show must be vouched for.
    VerifyClientCertIfGiven,
    /// They must show one that is vouched for.
    RequireAndVerifyClientCert,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Version {
    /// 1.0: known, so that it can be refused by name.
    #[serde(rename = "TLS10")]
    Tls10,
    /// 1.1: the same.
    #[serde(rename = "TLS11")]
    Tls11,
    /// 1.2.
    #[serde(rename = "TLS12")]
    Tls12,
    /// 1.3.
    #[serde(rename = "TLS13")]
    Tls13,
}

/// `http_server_config`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSection {
    /// Whether HTTP/2 is wanted; `None` if nobody says.
    #[serde(deserialize_with = "or_default")]
    pub http2: Option<bool>,
    /// Headers of every response.
    #[serde(deserialize_with = "or_default")]
    pub headers: BTreeMap<String, String>,
}

/// `rate_limit`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateSection {
    /// Time after which one more request may pass; zero for no limit.
    #[serde(deserialize_with = "or_default")]
    pub interval: GoDuration,
    /// Requests that may come at once.
    #[serde(deserialize_with = "or_default")]
    pub burst: u32,
}

/// A duration as Go writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GoDuration(pub Duration);

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map(Self).ok_or_else(|| de::Error::custom(Expected("a duration such as 500ms or 1m30s")))
    }
}

/// A message of ours that [`problem`] may show: it holds nothing of the file.
struct Expected(&'static str);

/// Marks such messages. No text of a file gets in front of a message.
const EXPECTED: &str = "expected ";

impl fmt::Display for Expected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{EXPECTED}{}", self.0)
    }
}

/// A key without a value says as much as no key.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads the file's text. The error is one line with the place.
pub fn parse(bytes: &[u8]) -> Result<WebFile, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        format!("line {line}: not UTF-8")
    })?;
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(WebFile::default());
    }
    serde_saphyr::from_str(text).map_err(|error| problem(&error))
}

/// What is wrong, where, and what would be right, without a word of what stands there: only a key that is not known is
/// named, for it is what has to be found.
fn problem(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error;
    let error = error.without_snippet();
    let place = error.location().map(|at| format!("line {}, column {}: ", at.line(), at.column())).unwrap_or_default();
    let what = match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            format!("unknown key {:?}, known are {}", shortened(field), expected.join(", "))
        }
        Error::SerdeUnknownVariant { expected, .. } => {
            format!("unknown value, known are {}", expected.join(", "))
        }
        Error::DuplicateMappingKey { .. } => "a key stands here twice".to_owned(),
        Error::SerdeInvalidType { expected, .. } | Error::SerdeInvalidValue { expected, .. } => {
            format!("expected {expected}")
        }
        Error::Unexpected { expected, .. } => format!("expected {expected}"),
        Error::InvalidScalar { ty, .. } => format!("expected {ty}"),
        Error::InvalidBooleanStrict { .. } => "expected true or false".to_owned(),
        Error::MultipleDocuments { .. } => "more than one document".to_owned(),
        Error::Message { msg, .. } if msg.starts_with(EXPECTED) => msg.lines().next().unwrap_or_default().to_owned(),
        _ => "not YAML, or not what belongs here".to_owned(),
    };
    format!("{place}{what}")
}

/// A key as a log line may hold it. Nothing that long is a key of ours, and it might be a key of another kind.
pub(super) fn shortened(key: &str) -> String {
    let short: String = key.chars().take(40).collect();
    if short.len() < key.len() { format!("{}...", short.chars().take(8).collect::<String>()) } else { short }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_key_is_read() {
        let file = parse(
            b"tls_server_config:\n  cert_file: a.crt\n  key_file: a.key\n  cert: C\n  key: K\n  client_ca: CA\n  \
              client_ca_file: ca.crt\n  client_auth_type: RequireAndVerifyClientCert\n  client_allowed_sans: [a, b]\n  \
              min_version: TLS12\n  max_version: TLS13\n  cipher_suites: [X]\n  prefer_server_cipher_suites: false\n  \
              curve_preferences: [X25519]\nhttp_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: deny\n\
              basic_auth_users:\n  alice: hash\nrate_limit:\n  interval: 1m30s\n  burst: 7\n",
        )
        .unwrap();
        let tls = &file.tls_server_config;
        assert_eq!((tls.cert_file.to_str(), tls.key_file.to_str()), (Some("a.crt"), Some("a.key")));
        assert_eq!((tls.cert.as_str(), tls.key.expose(), tls.client_ca.as_str()), ("C", "K", "CA"));
        assert_eq!(tls.client_ca_file.to_str(), Some("ca.crt"));
        assert_eq!(tls.client_auth_type, ClientAuthType::RequireAndVerifyClientCert);
        assert_eq!(tls.client_allowed_sans, ["a", "b"]);
        assert_eq!((tls.min_version, tls.max_version), (Some(Version::Tls12), Some(Version::Tls13)));
        assert_eq!((tls.cipher_suites.len(), tls.curve_preferences.len()), (1, 1));
        assert_eq!(tls.prefer_server_cipher_suites, Some(false));
        assert!(tls.wants_tls());
        assert_eq!(file.http_server_config.http2, Some(false));
        assert_eq!(file.http_server_config.headers["X-Frame-Options"], "deny");
        assert_eq!(file.basic_auth_users["alice"].expose(), "hash");
        assert_eq!((file.rate_limit.interval.0, file.rate_limit.burst), (Duration::from_secs(90), 7));
    }

    #[test]
    fn what_says_nothing_asks_for_nothing() {
        let nothing: [&[u8]; 5] = [
            b"",
            b"# a comment\n\n",
            b"tls_server_config:\nbasic_auth_users:\nrate_limit:\n",
            b"tls_server_config:\n  cert_file: ''\n  client_auth_type: ''\n  min_version:\n",
            b"basic_auth_users: {}\nrate_limit: {interval: 0}\n",
        ];
        for text in nothing {
            let file = parse(text).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(text)));
            assert!(!file.tls_server_config.wants_tls());
            assert_eq!(file.tls_server_config.client_auth_type, ClientAuthType::NoClientCert);
            assert!(file.basic_auth_users.is_empty());
            assert_eq!(file.rate_limit.interval.0, Duration::ZERO);
        }
        let old = parse(b"tls_server_config: {client_auth_type: RequireClientCert}").unwrap();
        assert_eq!(old.tls_server_config.client_auth_type, ClientAuthType::RequireAnyClientCert);
    }

    /// Everything that is wrong, each with a canary where a secret could stand.
    const WRONG: &[(&str, &str)] = &[
        ("tls_server_config:\n  cert_fil: x\n", "line 2, column 3: unknown key \"cert_fil\", known are cert, key,"),
        ("basic_auth_user:\n  alice: CANARY\n", "line 1, column 1: unknown key \"basic_auth_user\", known are tls_"),
        ("basic_auth_users:\n  alice: CANARY\n  alice: CANARY2\n", "line 3, column 3: a key stands here twice"),
        ("basic_auth_users: CANARY\n", "line 1, column 19: "),
        ("basic_auth_users:\n  alice: [CANARY]\n", "line 2, column 10: "),
        ("basic_auth_users:\n  - alice: CANARY\n", "line 2, column 3: "),
        ("tls_server_config:\n  key: {CANARY: x}\n", "line 2, column 8: "),
        ("tls_server_config: [CANARY]\n", "line 1, column 20: "),
        ("tls_server_config:\n  min_version: CANARY\n", "unknown value, known are TLS10, TLS11, TLS12, TLS13"),
        ("tls_server_config:\n  client_auth_type: CANARY\n", "unknown value, known are "),
        ("http_server_config:\n  http2: CANARY\n", "line 2, column 10: "),
        ("rate_limit:\n  interval: CANARY\n  burst: 1\n", "expected a duration such as 500ms or 1m30s"),
        ("rate_limit:\n  interval: 5\n", "expected a duration"),
        ("rate_limit:\n  burst: CANARY\n", "line 2, column 10: "),
        ("rate_limit:\n  burst: -1\n", "line 2, column 10: "),
        ("CANARY\n", "line 1, column 1: "),
        ("basic_auth_users: {alice: \"CANARY\n", "line "),
        ("basic_auth_users:\n  alice: @CANARY\n", "line "),
        ("basic_auth_users:\n  alice: *CANARY\n", "line "),
        ("basic_auth_users:\n\talice: CANARY\n", "line "),
        ("---\na: CANARY\n---\nb: CANARY\n", "line "),
    ];

    #[test]
    fn an_error_has_a_place_in_one_line_and_nothing_of_the_file() {
        for (text, expected) in WRONG {
            let error = parse(text.as_bytes()).expect_err(text);
            assert!(error.contains(expected), "{text:?}: {error}");
            assert!(!error.contains("CANARY") && !error.contains('\n'), "{text:?}: {error}");
        }
        assert_eq!(parse(b"a: b\nc: \xff\n").unwrap_err(), "line 2: not UTF-8");
        let long = format!("{}: 1\n", "A1b2".repeat(30));
        let error = parse(long.as_bytes()).unwrap_err();
        assert!(error.contains("\"A1b2A1b2...\"") && !error.contains("A1b2A1b2A"), "{error}");
    }

    #[test]
    fn what_was_read_is_printed_without_its_secrets() {
        let file = parse(b"tls_server_config: {key: CANARY}\nbasic_auth_users: {alice: CANARY}\n").unwrap();
        let printed = format!("{file:?}");
        assert!(printed.contains("alice") && !printed.contains("CANARY"), "{printed}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn any_yaml_like_text_is_read_or_refused(text in "([a-z_]{0,6}(cert|key|rate_limit|basic_auth_users)?[:{}\\[\\]&*!|> \"'\n#-]{0,3}){0,30}") {
            if let Err(error) = parse(text.as_bytes()) {
                prop_assert!(!error.contains('\n'), "{}", error);
            }
        }
    }
}
