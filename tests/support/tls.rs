//! A client of TLS, for what a well-behaved one does not do: every step may be refused, and is told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned,
    SupportedProtocolVersion,
};

use super::agent::Answer;
use super::pki::{Authority, Identity};
use super::wire::parse;

/// How long a socket waits for the agent.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whom to trust, who to be and what to speak.
#[derive(Clone)]
pub struct Client {
    config: Arc<ClientConfig>,
}

/// A connection after its handshake.
pub struct Connection {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

impl Client {
    /// Trusts this authority and shows no certificate.
    pub fn new(trusted: &Authority) -> Self {
        Self::with(trusted, None, BOTH)
    }

    /// Shows a certificate if it is asked for.
    pub fn shows(trusted: &Authority, identity: &Identity) -> Self {
        Self::with(trusted, Some(identity), BOTH)
    }

    /// Speaks one version only.
    pub fn speaks(trusted: &Authority, version: &'static SupportedProtocolVersion) -> Self {
        Self::with(trusted, None, &[version])
    }

    /// The whole choice.
    pub fn with(
        trusted: &Authority,
        identity: Option<&Identity>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(trusted.certificate())).expect("an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key.clone()));
                let chain = vec![CertificateDer::from(identity.certificate.clone())];
                builder.with_client_auth_cert(chain, key).expect("a certificate of ours")
            }
        };
        Self { config: Arc::new(config) }
    }

    /// Trusts whoever answers, as `insecureSkipVerify` does.
    pub fn trusting() -> Self {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(BOTH)
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trusting))
            .with_no_client_auth();
        Self { config: Arc::new(config) }
    }

    /// Connects, and offers these protocols above TLS.
    pub fn offers(mut self, protocols: &[&[u8]]) -> Self {
        Arc::make_mut(&mut self.config).alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        self
    }

    /// Connects and shakes hands. With TLS 1.3 a client's certificate is refused only after that.
    pub fn connect(&self, address: SocketAddr) -> Result<Connection, String> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(|error| format!("connect: {error}"))?;
        stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        stream.set_nodelay(true).expect("send at once");
        let name = ServerName::try_from("localhost").expect("a name");
        let mut connection = ClientConnection::new(Arc::clone(&self.config), name).expect("a connection");
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).map_err(|error| format!("handshake: {error}"))?;
        }
        Ok(Connection { stream: StreamOwned::new(connection, stream) })
    }

    /// One request on a connection of its own.
    pub fn exchange(
        &self,
        address: SocketAddr,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer, String> {
        let mut connection = self.connect(address)?;
        let headers = [headers, &[("Connection", "close")]].concat();
        connection.send(method, target, &headers)?;
        let mut bytes = Vec::new();
        match connection.stream.read_to_end(&mut bytes) {
            Err(error) if bytes.is_empty() => Err(format!("read: {error}")),
            Ok(0) => Err("closed without an answer".to_owned()),
            _ => Ok(parse(&bytes)),
        }
    }

    /// The status of a GET on a connection of its own.
    pub fn get(&self, address: SocketAddr, target: &str) -> Result<u16, String> {
        self.exchange(address, "GET", target, &[]).map(|answer| answer.status)
    }
}

impl Connection {
    /// The server's certificate.
    pub fn certificate(&self) -> Vec<u8> {
        self.stream.conn.peer_certificates().expect("a certificate")[0].to_vec()
    }

    /// What was agreed on above TLS.
    pub fn protocol(&self) -> Option<Vec<u8>> {
        self.stream.conn.alpn_protocol().map(<[u8]>::to_vec)
    }

    /// The version of TLS and the suite.
    pub fn suite(&self) -> String {
        format!("{:?}", self.stream.conn.negotiated_cipher_suite().expect("a suite").suite())
    }

    fn send(&mut self, method: &str, target: &str, headers: &[(&str, &str)]) -> Result<(), String> {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request = format!("{method} {target} HTTP/1.1\r\nHost: node\r\n{headers}\r\n");
        self.stream.write_all(request.as_bytes()).map_err(|error| format!("write: {error}"))
    }

    /// A GET that leaves the connection open. The answer must say its length.
    pub fn get(&mut self, target: &str, headers: &[(&str, &str)]) -> Result<Answer, String> {
        self.send("GET", target, headers)?;
        let mut bytes = Vec::new();
        let mut byte = [0; 4096];
        loop {
            let read = self.stream.read(&mut byte).map_err(|error| format!("read: {error}"))?;
            if read == 0 {
                return Err("closed within an answer".to_owned());
            }
            bytes.extend_from_slice(&byte[..read]);
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                let answer = parse(&bytes);
                let length: usize = answer.header("content-length").parse().map_err(|_| "no length".to_owned())?;
                if bytes.len() >= end + 4 + length {
                    return Ok(answer);
                }
            }
        }
    }
}

#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}
