//! A Kubernetes API server over TLS that knows two questions, TokenReview and SubjectAccessReview, and some persistent
//! volumes. It can hang, lie, flood, refuse and go away, and counts what it is asked.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::pki::Authority;

/// How it behaves.
#[derive(Clone, Debug)]
pub enum Mood {
    /// Answers what it knows.
    Honest,
    /// Takes questions and never answers.
    Hung,
    /// Closes the connection.
    Gone,
    /// Answers without end.
    Flooding,
    /// Answers what it knows, with a status that says something else.
    HonestBut(u16),
    /// Answers every question with this body and status.
    Saying(u16, String),
}

/// A question.
#[derive(Clone, Debug)]
pub struct Question {
    pub path: String,
    pub authorization: String,
    pub body: Value,
}

#[derive(Debug)]
struct State {
    mood: Mood,
    users: HashMap<String, String>,
    grants: HashSet<(String, String)>,
    volumes: HashMap<String, Value>,
    asked: Vec<Question>,
}

/// The server. Dropping it ends it.
pub struct ApiServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    ended: Arc<AtomicBool>,
    account: TempDir,
}

/// The agent's own token.
pub const AGENT_TOKEN: &str = "agents-own-token-1f3a";

impl ApiServer {
    /// Starts with no users.
    pub fn start() -> Self {
        let authority = Authority::new("cluster");
        let account = tempfile::tempdir().expect("a directory");
        fs::write(account.path().join("ca.crt"), authority.pem()).expect("write the CA");
        fs::write(account.path().join("token"), format!("{AGENT_TOKEN}\n")).expect("write the token");
        let identity = authority.server();
        let chain = vec![CertificateDer::from(identity.certificate)];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key));
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate");
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("an address");
        let state = State {
            mood: Mood::Honest,
            users: HashMap::new(),
            grants: HashSet::new(),
            volumes: HashMap::new(),
            asked: Vec::new(),
        };
        let server =
            Self { address, state: Arc::new(Mutex::new(state)), ended: Arc::new(AtomicBool::new(false)), account };
        let (state, ended, config) = (Arc::clone(&server.state), Arc::clone(&server.ended), Arc::new(config));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ended.load(Ordering::SeqCst) {
                    break;
                }
                let (state, config) = (Arc::clone(&state), Arc::clone(&config));
                // A client that goes away in the middle is nothing to fail for.
                std::thread::spawn(move || serve(stream, &state, config));
            }
        });
        server
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with the lock")
    }

    /// The variables that Kubernetes gives every pod.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        [
            ("KUBERNETES_SERVICE_HOST", self.address.ip().to_string()),
            ("KUBERNETES_SERVICE_PORT", self.address.port().to_string()),
        ]
    }

    /// Where the agent's token and the CA are.
    pub fn account(&self) -> &Path {
        self.account.path()
    }

    /// Knows a token from now on, as this user's.
    pub fn knows(&self, token: &str, user: &str) {
        self.state().users.insert(token.to_owned(), user.to_owned());
    }

    /// Knows it no longer.
    pub fn forgets(&self, token: &str) {
        self.state().users.remove(token);
    }

    /// Allows a user to read a path.
    pub fn grants(&self, user: &str, path: &str) {
        self.state().grants.insert((user.to_owned(), path.to_owned()));
    }

    /// Has a persistent volume by this CSI driver, bound to this claim.
    pub fn binds(&self, volume: &str, (driver, handle): (&str, &str), (namespace, claim): (&str, &str)) {
        let object = json!({
            "kind": "PersistentVolume", "apiVersion": "v1", "metadata": { "name": volume },
            "spec": { "csi": { "driver": driver, "volumeHandle": handle },
                "claimRef": { "kind": "PersistentVolumeClaim", "namespace": namespace, "name": claim } },
            "status": { "phase": "Bound" },
        });
        self.has(volume, object);
    }

    /// Answers so when it is asked for a persistent volume.
    pub fn has(&self, volume: &str, object: Value) {
        self.state().volumes.insert(volume.to_owned(), object);
    }

    /// Behaves like this from now on.
    pub fn behaves(&self, mood: Mood) {
        self.state().mood = mood;
    }

    /// All it was asked.
    pub fn asked(&self) -> Vec<Question> {
        self.state().asked.clone()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>, config: Arc<ServerConfig>) -> Option<()> {
    if matches!(state.lock().ok()?.mood, Mood::Gone) {
        return None;
    }
    let mut stream = StreamOwned::new(ServerConnection::new(config).ok()?, stream);
    let mut kept = Vec::new();
    loop {
        let question = read(&mut stream, &mut kept)?;
        let mood = {
            let mut state = state.lock().ok()?;
            state.asked.push(question.clone());
            state.mood.clone()
        };
        let (status, body) = match mood {
            Mood::Honest => {
                let (status, body) = answer(&*state.lock().ok()?, &question);
                (status, body.to_string())
            }
            Mood::HonestBut(status) => (status, answer(&*state.lock().ok()?, &question).1.to_string()),
            Mood::Saying(status, body) => (status, body),
            Mood::Gone => return None,
            Mood::Hung => {
                // Until the client has enough.
                let _ = stream.read(&mut [0; 64]);
                return None;
            }
            Mood::Flooding => {
                let head =
                    "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 1099511627776\r\n\r\n";
                stream.write_all(head.as_bytes()).ok()?;
                loop {
                    stream.write_all(&[b' '; 16384]).ok()?;
                }
            }
        };
        let head =
            format!("HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body.as_bytes()).ok()?;
    }
}

fn read(stream: &mut impl Read, kept: &mut Vec<u8>) -> Option<Question> {
    let mut chunk = [0; 4096];
    let (end, length) = loop {
        if let Some(end) = kept.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&kept[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            let length: usize = length.unwrap_or(0);
            if kept.len() >= end + 4 + length {
                break (end, length);
            }
        }
        let read = stream.read(&mut chunk).ok().filter(|read| *read > 0)?;
        kept.extend_from_slice(&chunk[..read]);
    };
    let head = String::from_utf8_lossy(&kept[..end]).into_owned();
    let body = match &kept[end + 4..end + 4 + length] {
        [] => Value::Null,
        body => serde_json::from_slice(body).ok()?,
    };
    kept.drain(..end + 4 + length);
    let authorization = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("authorization").then(|| value.trim().to_owned())
    });
    let path = head.split(' ').nth(1)?.to_owned();
    Some(Question { path, authorization: authorization.unwrap_or_default(), body })
}

fn answer(state: &State, question: &Question) -> (u16, Value) {
    if let Some(volume) = question.path.strip_prefix("/api/v1/persistentvolumes/") {
        // Longer than what comes with the head.
        let message = "no such volume ".repeat(20_000);
        let absent =
            json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": 404 });
        return state.volumes.get(volume).map_or((404, absent), |volume| (200, volume.clone()));
    }
    (201, review(state, question))
}

fn review(state: &State, question: &Question) -> Value {
    let spec = &question.body["spec"];
    let status = match question.path.as_str() {
        "/apis/authentication.k8s.io/v1/tokenreviews" => {
            match spec["token"].as_str().and_then(|token| state.users.get(token)) {
                Some(user) => json!({ "authenticated": true, "user": { "username": user, "uid": "7",
                    "groups": ["system:authenticated"], "extra": { "authentication.kubernetes.io/pod-name": ["p"] } } }),
                None => json!({ "authenticated": false, "error": "[invalid bearer token, token expired]" }),
            }
        }
        "/apis/authorization.k8s.io/v1/subjectaccessreviews" => {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let asked = (text(&spec["user"]), text(&spec["nonResourceAttributes"]["path"]));
            let may = state.grants.contains(&asked) && spec["nonResourceAttributes"]["verb"] == "get";
            json!({ "allowed": may, "reason": "RBAC" })
        }
        _ => Value::Null,
    };
    json!({ "apiVersion": question.body["apiVersion"], "kind": question.body["kind"], "status": status })
}
