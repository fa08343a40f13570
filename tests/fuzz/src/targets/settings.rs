//! What operators write, and what the API server answers: configurations, certificates, reviews.

use std::sync::Arc;

use kata_pulse::config::{Config, Settings};
use kata_pulse::web::client_cert::{NamedClients, verifier};
use kata_pulse::web::file::{self, ClientAuthType};
use kata_pulse::web::kubernetes::review;
use kata_pulse::web::policy;
use kata_pulse::web::rate::parse_duration;
use kata_pulse::web::tls::certificates;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::CertificateDer;
use serde_json::Value;

use crate::memory::within;
use crate::reference::contains;

/// A secret longer than any key that an error may name.
const SECRET: &str = "$2y$04$mxVqeXjKDrKkHoHhmOKwE.vFIbxVnSAKDrBkqVCJXOmH3.L3QXlIG";

/// Longest key that is named in full.
const SHOWN: usize = 40;

/// The YAML of `--config`.
pub fn config(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let settings = match within(text.len(), 4000, 2 << 20, || Settings::from_yaml(text)) {
        Ok(settings) => settings,
        Err(problem) => return assert!(!problem.contains('\n'), "{problem:?}"),
    };
    let Ok(config) = Config::new(settings) else { return };
    let written = config.to_yaml();
    let read = Settings::from_yaml(&written).unwrap_or_else(|problem| panic!("{problem}\n{written}"));
    let again = Config::new(read).unwrap_or_else(|problem| panic!("{problem}\n{written}"));
    assert_eq!(again.to_yaml(), written, "the settings in force are written as others");
}

/// The YAML of `--web-config`.
pub fn web_config(text: &[u8]) {
    duration(text);
    match within(text.len(), 4000, 2 << 20, || file::parse(text)) {
        Err(problem) => is_discreet(&problem),
        Ok(file) => {
            let tls = &file.tls_server_config;
            let paths = [&tls.cert_file, &tls.key_file, &tls.client_ca_file];
            // A path may be that of anything.
            if paths.iter().all(|path| path.as_os_str().is_empty()) {
                in_force(text);
            }
        }
    }
}

/// Read as a file, with all that it says.
fn in_force(text: &[u8]) {
    let path = std::env::temp_dir().join(format!("kata-pulse-fuzz-policy-{}.yaml", std::process::id()));
    std::fs::write(&path, text).expect("write the web configuration");
    match policy::read(&path).and_then(|texts| texts.into_policy(&path)) {
        Ok(policy) => assert!(policy.headers.iter().all(|(_, value)| value.bytes().all(|byte| byte >= b' '))),
        Err(error) => is_discreet(&policy::chain(&error)),
    }
}

/// One line, without the secret.
fn is_discreet(problem: &str) {
    assert!(!problem.contains('\n'), "{problem:?}");
    let told = SECRET.as_bytes().windows(SHOWN + 1).any(|part| contains(problem.as_bytes(), part));
    assert!(!told, "{problem}");
}

/// Go's durations: whole numbers of whole units are exact.
fn duration(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Some(read) = parse_duration(text) else { return };
    let Some(seconds) = text.strip_suffix('s').and_then(|digits| digits.parse::<u32>().ok()) else { return };
    assert_eq!(read.as_secs(), u64::from(seconds), "{text}");
}

/// A client's certificates: PEM, or one of them in DER.
pub fn certificates_of_clients(input: &[u8]) {
    let listed = within(input.len(), 20, 16 << 10, || certificates(input)).unwrap_or_default();
    for certificate in listed.into_iter().chain([CertificateDer::from(input)]) {
        names(&certificate);
    }
}

/// A certificate has a name only if its bytes have it.
fn names(certificate: &CertificateDer<'_>) {
    let Ok(parsed) = webpki::EndEntityCert::try_from(certificate) else { return };
    let provider = Arc::new(default_provider());
    let any =
        || verifier(ClientAuthType::RequireAnyClientCert, None, &[], &provider).expect("a verifier").expect("one");
    let allowed: [(&str, &[u8]); 3] = [
        ("prometheus.example", b"prometheus.example"),
        ("spiffe://cluster.local/ns/monitoring", b"spiffe://cluster.local/ns/monitoring"),
        ("10.1.2.3", &[10, 1, 2, 3]),
    ];
    for (name, bytes) in allowed {
        let clients = NamedClients::new(any(), &[name.to_owned()]).expect("a name that can be allowed");
        assert!(!clients.is_named(&parsed) || contains(certificate, bytes), "{name} was made up");
    }
}

/// Answers of the Kubernetes API server.
pub fn kubernetes_reviews(answer: &[u8]) {
    let (user, allows) = within(answer.len(), 200, 16 << 10, || (review::user(answer), review::allows(answer)));
    // The general reader refuses texts that are of no interest to ours.
    let Ok(document) = serde_json::from_slice::<Value>(answer) else { return };
    if let Ok(Some(user)) = user {
        let status = &document["status"];
        assert_eq!((&document["kind"], &status["authenticated"]), (&Value::from("TokenReview"), &Value::from(true)));
        assert!(status["error"].as_str().unwrap_or_default().is_empty());
        assert!(!user.username.is_empty() && status["user"]["username"] == user.username.as_str());
        let question = review::access_review(&user, "/metrics");
        let asked = &question["spec"];
        assert_eq!(
            (&asked["user"], &asked["nonResourceAttributes"]["verb"]),
            (&Value::from(&*user.username), &Value::from("get"))
        );
        let groups = status["user"].get("groups").cloned().unwrap_or_else(|| Value::Array(Vec::new()));
        assert_eq!(asked["groups"], groups);
    }
    if allows == Ok(true) {
        assert_eq!(document["kind"], "SubjectAccessReview");
        assert_eq!(document["status"]["allowed"], true);
        assert_ne!(document["status"]["denied"], true);
    }
}
