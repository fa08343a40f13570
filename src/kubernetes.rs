//! The Kubernetes API server over HTTPS: a connection for a few questions, verified by the cluster's CA, with caps on
//! what may come back. The caller sets the deadline; nothing goes on after it. A leaf.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Largest answer read. A review of a user with hundreds of groups is some KiB, and so is a persistent volume.
const MAX_ANSWER: usize = 256 * 1024;

/// Largest token or CA file read.
const MAX_FILE: u64 = 1 << 20;

/// Longest head of an answer.
const MAX_HEAD: usize = 32 * 1024;

/// Where the API server is and how it knows us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Directory with `token` and `ca.crt`, both read anew for each connection: they rotate.
    pub service_account: PathBuf,
}

/// Why it could not be asked. None of them names a token.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// What the agent needs to be known there cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It can be read and makes no sense.
    #[error("{path}: {problem}")]
    Account {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// The host's name can be none.
    #[error("{0:?} is no host name")]
    Name(String),
    /// No connection.
    #[error("connect to the API server")]
    Connect(#[source] std::io::Error),
    /// Connected, and no answer.
    #[error("ask the API server")]
    Ask(#[source] hyper::Error),
    /// An answer that is too large, or was cut short.
    #[error("read the API server's answer")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Not the status of an answer: 403 means that the agent itself may not ask.
    #[error("the API server answers {status} to {path}")]
    Status {
        /// What it says.
        status: StatusCode,
        /// To which question.
        path: Cow<'static, str>,
    },
    /// Something else than an answer.
    #[error("the API server's answer to {0} makes no sense")]
    Nonsense(Cow<'static, str>),
    /// Not in time.
    #[error("no answer of the API server within {0:?}")]
    Late(Duration),
}

/// The API server.
#[derive(Debug)]
pub struct Api {
    options: Options,
}

impl Api {
    /// An API server that has not been connected.
    pub fn new(options: Options) -> Self {
        Self { options }
    }

    /// Connects.
    pub async fn connect(&self) -> Result<Connection, ApiError> {
        let Options { host, port, service_account } = &self.options;
        let token = read(&service_account.join("token")).await?;
        let ca = read(&service_account.join("ca.crt")).await?;
        let config = trusting(&ca, &service_account.join("ca.crt"))?;
        let name = ServerName::try_from(host.clone()).map_err(|_| ApiError::Name(host.clone()))?;
        let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(ApiError::Connect)?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(ApiError::Connect)?;
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(ApiError::Ask)?;
        let driver = tokio::spawn(async move {
            // Whoever waits for the answer is told by the sender.
            let _ = driver.await;
        });
        let bearer = String::from_utf8(token).ok();
        let bearer = bearer.and_then(|token| HeaderValue::from_str(&format!("Bearer {}", token.trim())).ok());
        let mut bearer = bearer.ok_or_else(|| ApiError::Account {
            path: service_account.join("token").display().to_string(),
            problem: "not a token".to_owned(),
        })?;
        bearer.set_sensitive(true);
        let host = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        Ok(Connection { sender, bearer, host, driver })
    }
}

/// A connection that ends with whoever asks.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    bearer: HeaderValue,
    host: String,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// The answer to a question that is an object.
    pub async fn post(&mut self, path: &'static str, question: &Value) -> Result<Vec<u8>, ApiError> {
        self.ask(Method::POST, path.into(), question.to_string()).await
    }

    /// An object.
    pub async fn get(&mut self, path: String) -> Result<Vec<u8>, ApiError> {
        self.ask(Method::GET, path.into(), String::new()).await
    }

    async fn ask(&mut self, method: Method, path: Cow<'static, str>, body: String) -> Result<Vec<u8>, ApiError> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|_| ApiError::Nonsense(path.clone()))?;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_str(&self.host).map_err(|_| ApiError::Name(self.host.clone()))?);
        headers.insert(AUTHORIZATION, self.bearer.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        self.sender.ready().await.map_err(ApiError::Ask)?;
        let answer = self.sender.send_request(request).await.map_err(ApiError::Ask)?;
        let status = answer.status();
        if status != StatusCode::CREATED && status != StatusCode::OK {
            return Err(ApiError::Status { status, path });
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(ApiError::Body)?;
        Ok(body.to_bytes().to_vec())
    }
}

/// Reads a small file off the async workers.
async fn read(path: &Path) -> Result<Vec<u8>, ApiError> {
    use std::io::Read;
    let owned = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        std::fs::File::open(owned)?.take(MAX_FILE).read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    let read = reading.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    read.map_err(|source| ApiError::Read { path: path.display().to_string(), source })
}

/// TLS that trusts this CA and nobody else.
fn trusting(ca: &[u8], path: &Path) -> Result<ClientConfig, ApiError> {
    let broken = |problem: String| ApiError::Account { path: path.display().to_string(), problem };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        let certificate = certificate.map_err(|_| broken("broken PEM".to_owned()))?;
        roots.add(certificate).map_err(|_| broken("a certificate that cannot be used".to_owned()))?;
    }
    if roots.is_empty() {
        return Err(broken("no certificate in PEM".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| broken(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
