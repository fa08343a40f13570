//! `tls_server_config` to what rustls works with. What rustls cannot do is refused by name, never passed over.

use std::sync::Arc;

use rustls::crypto::ring::{ALL_CIPHER_SUITES, ALL_KX_GROUPS, default_provider};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{NamedGroup, RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};

use super::client_cert;
use super::file::{TlsSection, Version, shortened};

/// HTTP/1.1 only: one connection carries one request at a time, so the bounds on connections and requests hold.
const PROTOCOLS: [&[u8]; 1] = [b"http/1.1"];

/// What Go offers for TLS 1.2 and rustls does not: no forward secrecy, or CBC.
const NOT_OFFERED: [&str; 4] = ["_CBC_", "TLS_RSA_", "_RC4_", "_3DES_"];

/// The PEM texts that a section asks for, read from wherever they are.
pub struct Material {
    /// The server's certificate chain.
    pub cert: Vec<u8>,
    /// Its key.
    pub key: Vec<u8>,
    /// Who vouches for clients.
    pub client_ca: Option<Vec<u8>>,
}

/// The server side of TLS. The error is one line that names the key it is about.
pub fn server_config(section: &TlsSection, material: &Material) -> Result<ServerConfig, String> {
    let provider = Arc::new(provider(section)?);
    let certs = certificates(&material.cert).map_err(|problem| format!("cert: {problem}"))?;
    let key = PrivateKeyDer::from_pem_slice(&material.key).map_err(|_| "key: no private key in PEM".to_owned())?;
    let roots = material.client_ca.as_deref().map(roots).transpose()?;
    let verifier = client_cert::verifier(section.client_auth_type, roots, &section.client_allowed_sans, &provider)?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(section)?)
        .map_err(|_| "no cipher suite and curve is left for the versions that are spoken".to_owned())?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(certs, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => "the key does not belong to the certificate".to_owned(),
        _ => "certificate or key is of no kind that can be used".to_owned(),
    })?;
    config.ignore_client_order = section.prefer_server_cipher_suites.unwrap_or(true);
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
    Ok(config)
}

/// A certificate made up on the spot, for who wants TLS and has none; and its SHA-256 fingerprint.
pub fn self_signed() -> Result<(ServerConfig, String), String> {
    let names = ["localhost", "kata-pulse", "127.0.0.1", "::1"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).map_err(|error| format!("make a certificate: {error}"))?;
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let digest = ring::digest::digest(&ring::digest::SHA256, &certificate);
    let fingerprint: Vec<String> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate], key))
        .map_err(|error| format!("use the certificate made: {error}"))?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
    Ok((config, fingerprint.join(":")))
}

/// All certificates of a PEM text, at least one.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certs {
        Ok(certs) if certs.is_empty() => Err("no certificate in PEM".to_owned()),
        Ok(certs) => Ok(certs),
        Err(_) => Err("broken PEM".to_owned()),
    }
}

fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem).map_err(|problem| format!("client_ca: {problem}"))? {
        roots.add(certificate).map_err(|_| "client_ca: a certificate that cannot be used".to_owned())?;
    }
    Ok(roots)
}

fn versions(section: &TlsSection) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let min = section.min_version.unwrap_or(Version::Tls12);
    let max = section.max_version.unwrap_or(Version::Tls13);
    for (key, version) in [("min_version", min), ("max_version", max)] {
        if version < Version::Tls12 {
            return Err(format!("{key}: TLS 1.0 and 1.1 are not offered, TLS12 is the oldest"));
        }
    }
    if min > max {
        return Err("min_version is newer than max_version".to_owned());
    }
    let offered = [(Version::Tls13, &TLS13), (Version::Tls12, &TLS12)];
    Ok(offered.into_iter().filter(|(version, _)| (min..=max).contains(version)).map(|(_, spoken)| spoken).collect())
}

fn provider(section: &TlsSection) -> Result<CryptoProvider, String> {
    let mut provider = default_provider();
    if !section.cipher_suites.is_empty() {
        provider.cipher_suites = cipher_suites(&section.cipher_suites)?;
    }
    if !section.curve_preferences.is_empty() {
        provider.kx_groups = section.curve_preferences.iter().map(|name| curve(name)).collect::<Result<_, _>>()?;
    }
    Ok(provider)
}

/// The suites listed. The list is about TLS 1.2, as in Go; those of 1.3 stay, unless it names some of them.
fn cipher_suites(names: &[String]) -> Result<Vec<SupportedCipherSuite>, String> {
    let mut suites = names.iter().map(|name| suite(name)).collect::<Result<Vec<_>, _>>()?;
    if !suites.iter().any(|suite| suite.tls13().is_some()) {
        suites.splice(0..0, ALL_CIPHER_SUITES.iter().filter(|suite| suite.tls13().is_some()).copied());
    }
    Ok(suites)
}

fn suite(name: &str) -> Result<SupportedCipherSuite, String> {
    // rustls writes TLS13_ where Go and IANA write TLS_; Go knows two suites by an older, shorter name as well.
    let name = match name {
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" => "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305" => "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        name => name,
    };
    let named = |suite: &&SupportedCipherSuite| {
        suite.suite().as_str().is_some_and(|known| known == name || known.replacen("TLS13_", "TLS_", 1) == name)
    };
    if let Some(suite) = ALL_CIPHER_SUITES.iter().find(named) {
        return Ok(*suite);
    }
    if name.starts_with("TLS_") && NOT_OFFERED.iter().any(|part| name.contains(part)) {
        return Err(format!("cipher_suites: {:?} is too weak to be offered", shortened(name)));
    }
    let known: Vec<String> = ALL_CIPHER_SUITES
        .iter()
        .filter_map(|suite| Some(suite.suite().as_str()?.replacen("TLS13_", "TLS_", 1)))
        .collect();
    Err(format!("cipher_suites: no {:?}, there are {}", shortened(name), known.join(", ")))
}

fn curve(name: &str) -> Result<&'static dyn SupportedKxGroup, String> {
    let group = match name {
        "X25519" => NamedGroup::X25519,
        "CurveP256" => NamedGroup::secp256r1,
        "CurveP384" => NamedGroup::secp384r1,
        "CurveP521" => return Err("curve_preferences: CurveP521 is not offered".to_owned()),
        _ => {
            let name = shortened(name);
            return Err(format!("curve_preferences: no {name:?}, there are X25519, CurveP256, CurveP384"));
        }
    };
    ALL_KX_GROUPS
        .iter()
        .find(|known| known.name() == group)
        .copied()
        .ok_or_else(|| format!("curve_preferences: {name:?} is not offered"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn material() -> Material {
        let made = rcgen::generate_simple_self_signed(["node".to_owned()]).unwrap();
        Material {
            cert: pem("CERTIFICATE", made.cert.der()),
            key: pem("PRIVATE KEY", &made.signing_key.serialize_der()),
            client_ca: None,
        }
    }

    fn pem(what: &str, der: &[u8]) -> Vec<u8> {
        use base64::Engine;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", lines.join("\n")).into_bytes()
    }

    fn with(change: impl FnOnce(&mut TlsSection)) -> Result<ServerConfig, String> {
        let mut section = TlsSection::default();
        change(&mut section);
        server_config(&section, &material())
    }

    fn suites(config: &ServerConfig) -> Vec<&str> {
        config.crypto_provider().cipher_suites.iter().filter_map(|suite| suite.suite().as_str()).collect()
    }

    #[test]
    fn suites_and_curves_are_those_listed_in_their_order() {
        let named = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let config = with(|section| {
            section.cipher_suites =
                named(&["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"]);
            section.curve_preferences = named(&["CurveP384", "X25519"]);
            section.prefer_server_cipher_suites = Some(false);
        })
        .unwrap();
        assert_eq!(
            suites(&config),
            [
                "TLS13_AES_256_GCM_SHA384",
                "TLS13_AES_128_GCM_SHA256",
                "TLS13_CHACHA20_POLY1305_SHA256",
                "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
                "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"
            ]
        );
        let curves: Vec<NamedGroup> = config.crypto_provider().kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(curves, [NamedGroup::secp384r1, NamedGroup::X25519]);
        assert!(!config.ignore_client_order);
        assert!(with(|_| {}).unwrap().ignore_client_order, "the server's order by default, as in Go's file");
        let only = with(|section| section.cipher_suites = named(&["TLS_AES_128_GCM_SHA256"])).unwrap();
        assert_eq!(suites(&only), ["TLS13_AES_128_GCM_SHA256"]);
        assert_eq!(only.alpn_protocols, [b"http/1.1"]);
    }

    #[test]
    fn what_rustls_cannot_do_is_refused_by_name() {
        let suite = |name: &str| with(|section| section.cipher_suites = vec![name.to_owned()]).unwrap_err();
        assert_eq!(
            suite("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"),
            "cipher_suites: \"TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA\" is too weak to be offered"
        );
        assert!(suite("TLS_RSA_WITH_AES_128_GCM_SHA256").ends_with("is too weak to be offered"));
        assert!(
            suite("TLS_FUTURE").starts_with("cipher_suites: no \"TLS_FUTURE\", there are TLS_AES_256_GCM_SHA384, ")
        );
        let secret = "A1b2".repeat(30);
        assert!(suite(&secret).starts_with("cipher_suites: no \"A1b2A1b2...\", there are "));
        let curve = |name: &str| with(|section| section.curve_preferences = vec![name.to_owned()]).unwrap_err();
        assert_eq!(curve("CurveP521"), "curve_preferences: CurveP521 is not offered");
        assert!(curve(&secret).starts_with("curve_preferences: no \"A1b2A1b2...\", there are "));
        assert_eq!(curve("P256"), "curve_preferences: no \"P256\", there are X25519, CurveP256, CurveP384");
        let version = |min, max| with(|s| (s.min_version, s.max_version) = (min, max));
        let old = "TLS 1.0 and 1.1 are not offered, TLS12 is the oldest";
        assert_eq!(version(Some(Version::Tls10), None).unwrap_err(), format!("min_version: {old}"));
        assert_eq!(version(Some(Version::Tls11), None).unwrap_err(), format!("min_version: {old}"));
        assert_eq!(version(None, Some(Version::Tls11)).unwrap_err(), format!("max_version: {old}"));
        let crossed = version(Some(Version::Tls13), Some(Version::Tls12));
        assert_eq!(crossed.unwrap_err(), "min_version is newer than max_version");
        let nothing_left = with(|section| {
            section.cipher_suites = vec!["TLS_AES_128_GCM_SHA256".to_owned()];
            section.max_version = Some(Version::Tls12);
        });
        assert_eq!(nothing_left.unwrap_err(), "no cipher suite and curve is left for the versions that are spoken");
    }

    #[test]
    fn key_and_certificate_must_be_there_and_belong_together() {
        let section = TlsSection::default();
        let refused = |change: fn(&mut Material)| {
            let mut material = material();
            change(&mut material);
            server_config(&section, &material).unwrap_err()
        };
        assert_eq!(refused(|m| m.key = material().key), "the key does not belong to the certificate");
        assert_eq!(refused(|m| m.key = m.cert.clone()), "key: no private key in PEM");
        assert_eq!(refused(|m| m.cert = m.key.clone()), "cert: no certificate in PEM");
        assert_eq!(refused(|m| m.cert.truncate(80)), "cert: broken PEM");
        assert_eq!(refused(|m| m.client_ca = Some(b"x".to_vec())), "client_ca: no certificate in PEM");
        let ca = Some(material().cert);
        let alone = server_config(&section, &Material { client_ca: ca, ..material() }).unwrap_err();
        assert_eq!(alone, "client_ca needs a client_auth_type that verifies");
    }

    #[test]
    fn policies_for_clients_need_what_they_verify_against() {
        use super::super::file::ClientAuthType::*;
        for policy in [VerifyClientCertIfGiven, RequireAndVerifyClientCert] {
            let refused = with(|section| section.client_auth_type = policy).unwrap_err();
            assert!(refused.contains("there is no client_ca"), "{refused}");
        }
        for policy in [NoClientCert, RequestClientCert, RequireAnyClientCert, VerifyClientCertIfGiven] {
            let refused = with(|section| {
                section.client_auth_type = policy;
                section.client_allowed_sans = vec!["prometheus".to_owned()];
            });
            let needs = "client_allowed_sans needs client_auth_type RequireAndVerifyClientCert";
            assert_eq!(refused.unwrap_err(), needs);
        }
        let section = TlsSection {
            client_auth_type: RequireAndVerifyClientCert,
            client_allowed_sans: vec!["ops@example.org".to_owned()],
            ..TlsSection::default()
        };
        let material = Material { client_ca: Some(material().cert), ..material() };
        let refused = server_config(&section, &material).unwrap_err();
        assert!(refused.starts_with("client_allowed_sans: e-mail addresses cannot be checked"), "{refused}");
    }
}
