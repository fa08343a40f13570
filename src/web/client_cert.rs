//! What is asked of clients in the TLS handshake, by the names of Go's `ClientAuthType`.
//!
//! rustls verifies chains; here are only the two ways around that which the file offers, and the names that a verified
//! certificate must have.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
};

use super::file::ClientAuthType;

/// The verifier for a policy; `None` when clients are not asked. The error is one line.
pub fn verifier(
    policy: ClientAuthType,
    roots: Option<RootCertStore>,
    allowed: &[String],
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
    use ClientAuthType::{
        NoClientCert, RequestClientCert, RequireAndVerifyClientCert, RequireAnyClientCert, VerifyClientCertIfGiven,
    };
    if policy == NoClientCert && roots.is_some() {
        return Err("client_ca needs a client_auth_type that verifies".to_owned());
    }
    if !allowed.is_empty() && policy != RequireAndVerifyClientCert {
        // With RequireAnyClientCert exporter-toolkit takes them, though anybody can write any name into a certificate.
        return Err("client_allowed_sans needs client_auth_type RequireAndVerifyClientCert".to_owned());
    }
    let verified = || {
        let roots =
            roots.clone().ok_or("client_auth_type asks to verify, and there is no client_ca or client_ca_file")?;
        Ok::<_, String>(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)))
    };
    let refused = |error: rustls::server::VerifierBuilderError| format!("client_ca: {error}");
    Ok(match policy {
        NoClientCert => None,
        RequestClientCert => Some(Arc::new(AnyCertificate { mandatory: false, provider: Arc::clone(provider) })),
        RequireAnyClientCert => Some(Arc::new(AnyCertificate { mandatory: true, provider: Arc::clone(provider) })),
        VerifyClientCertIfGiven => Some(verified()?.allow_unauthenticated().build().map_err(refused)?),
        RequireAndVerifyClientCert => {
            let verifier = verified()?.build().map_err(refused)?;
            Some(if allowed.is_empty() { verifier } else { Arc::new(NamedClients::new(verifier, allowed)?) })
        }
    })
}

/// Takes every certificate of which the client has the key.
#[derive(Debug)]
struct AnyCertificate {
    mandatory: bool,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Takes certificates that another verifier takes and that have one of these names, to the letter.
#[derive(Debug)]
pub struct NamedClients {
    inner: Arc<dyn ClientCertVerifier>,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
}

/// A certificate without a name that is allowed.
#[derive(Debug, thiserror::Error)]
#[error("no name in the client's certificate is in client_allowed_sans")]
struct NotNamed;

impl NamedClients {
    /// On top of that verifier.
    pub fn new(inner: Arc<dyn ClientCertVerifier>, allowed: &[String]) -> Result<Self, String> {
        if allowed.iter().any(|name| name.contains('@') && !name.contains("://")) {
            return Err("client_allowed_sans: e-mail addresses cannot be checked, only DNS names, IP addresses and \
                        URIs"
                .to_owned());
        }
        let addresses = allowed.iter().filter_map(|name| name.parse().ok()).collect();
        Ok(Self { inner, names: allowed.to_vec(), addresses })
    }

    /// Whether a certificate has one of the names.
    pub fn is_named(&self, certificate: &webpki::EndEntityCert<'_>) -> bool {
        let listed = |name: &str| self.names.iter().any(|allowed| allowed == name);
        let addressed = |address: &IpAddr| {
            certificate.verify_is_valid_for_subject_name(&ServerName::IpAddress((*address).into())).is_ok()
        };
        certificate.valid_dns_names().any(listed)
            || certificate.valid_uri_names().any(listed)
            || self.addresses.iter().any(addressed)
    }
}

impl ClientCertVerifier for NamedClients {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        let certificate = webpki::EndEntityCert::try_from(end_entity)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if self.is_named(&certificate) {
            return Ok(verified);
        }
        Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(NotNamed)))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
