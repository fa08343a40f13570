//! What clients send: requests to the HTTP server as bytes, and the headers it takes apart.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, LazyLock, mpsc};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kata_pulse::expose::family::Profile;
use kata_pulse::expose::http::{Listen, Routes, serve};
use kata_pulse::expose::negotiate;
use kata_pulse::expose::page::Pages;
use kata_pulse::expose::text::Format;
use kata_pulse::model::identity::SandboxId;
use kata_pulse::model::inventory::Inventory;
use kata_pulse::model::passthrough::Passthrough;
use kata_pulse::model::snapshot::{Health, NoSnapshot, SandboxReport, Snapshot, SnapshotSource};
use kata_pulse::telemetry::Telemetry;
use kata_pulse::web::credentials::Credentials;
use kata_pulse::web::{HEALTH_PATHS, Options, Web};
use socket2::SockRef;

use crate::page;
use crate::reference::contains;

/// An answer to a request that was sent whole comes at once; one that was not never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A name that only a page can tell.
const POD: &str = "pod-that-nobody-guesses";

/// Every status that the server has a reason for.
const STATUSES: [&[u8]; 10] = [b"200", b"400", b"401", b"404", b"405", b"408", b"409", b"413", b"431", b"503"];

/// The server, open to everybody, and with users.
static SERVERS: LazyLock<[SocketAddr; 2]> = LazyLock::new(|| [start(Options::default()), start(guarded())]);

/// A snapshot that never changes.
struct Fixed(Arc<Snapshot>);

impl SnapshotSource for Fixed {
    fn snapshot(&self, deadline: Duration) -> BoxFuture<'_, Result<Arc<Snapshot>, NoSnapshot>> {
        assert!(deadline > Duration::ZERO, "a scrape is given no time");
        std::future::ready(Ok(Arc::clone(&self.0))).boxed()
    }

    fn inventory(&self) -> BoxFuture<'_, Arc<Inventory>> {
        std::future::ready(Arc::clone(&self.0.inventory)).boxed()
    }

    fn passthrough(
        &self,
        _sandbox: Option<SandboxId>,
        _deadline: Duration,
    ) -> BoxFuture<'_, Result<Arc<Passthrough>, NoSnapshot>> {
        std::future::ready(Ok(Arc::default())).boxed()
    }

    fn health(&self) -> Health {
        Health { live: true, ready: true, checks: Vec::new() }
    }
}

/// Two sandboxes whose ids begin alike.
fn snapshot() -> Snapshot {
    let sandboxes: Vec<_> = ["0123456789abcdef01", "0123456789abcdef02"]
        .into_iter()
        .map(|id| Arc::new(kata_pulse::model::inventory::Sandbox { pod_name: POD.to_owned(), ..page::sandbox(id) }))
        .collect();
    let report = |sandbox: &Arc<_>| SandboxReport {
        sandbox: Arc::clone(sandbox),
        up: Some(true),
        last_error: String::new(),
        kata: None,
    };
    let reports = sandboxes.iter().map(report).collect();
    let inventory = Arc::new(Inventory { sandboxes, ..Inventory::default() });
    Snapshot { inventory, sandboxes: reports, ..Snapshot::default() }
}

/// A web configuration with one user, whose password is not among the inputs.
fn guarded() -> Options {
    let path = std::env::temp_dir().join(format!("kata-pulse-fuzz-web-{}.yaml", std::process::id()));
    let text = "basic_auth_users: { alice: \"$2y$04$mxVqeXjKDrKkHoHhmOKwE.vFIbxVnSAKDrBkqVCJXOmH3.L3QXlIG\" }\n";
    std::fs::write(&path, text).expect("write the web configuration");
    Options { file: Some(path), ..Options::default() }
}

/// Serves on a port of its own for as long as this process lives.
fn start(options: Options) -> SocketAddr {
    let telemetry = Arc::new(Telemetry::new().expect("telemetry"));
    let web = Arc::new(Web::open(options, Arc::clone(&telemetry)).expect("the web configuration"));
    let pages = Arc::new(Pages::new(Profile::All, Arc::clone(&telemetry)));
    let routes = Routes::new(Arc::new(Fixed(Arc::new(snapshot()))), pages, telemetry, web);
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let everywhere = ["127.0.0.1:0".to_owned()];
            let (server, bound) = serve(routes, Listen { all: &everywhere, health: None }).expect("a port");
            tell.send(bound.all[0]).expect("somebody waits");
            server.await
        })
    });
    told.recv().expect("the server runs")
}

/// Bytes of a connection to the server. The first byte chooses whether it knows users.
pub fn http_requests(input: &[u8]) {
    let Some((choice, request)) = input.split_first() else { return };
    let guarded = choice & 1 != 0;
    let answer = ask(SERVERS[usize::from(guarded)], request);
    if answer.is_empty() {
        return;
    }
    let status = answer.strip_prefix(b"HTTP/1.1 ").or_else(|| answer.strip_prefix(b"HTTP/1.0 "));
    let status = status.and_then(|rest| rest.get(..3)).unwrap_or_default();
    assert!(STATUSES.contains(&status), "{}", String::from_utf8_lossy(&answer));
    if guarded {
        assert!(!contains(&answer, POD.as_bytes()), "told to nobody in particular");
        let healthy = HEALTH_PATHS.iter().any(|path| contains(request, path.as_bytes()));
        assert!(status != b"200" || healthy, "{}", String::from_utf8_lossy(&answer));
    }
}

/// Everything that is answered to a connection that says this and then no more.
fn ask(server: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server).expect("the server accepts");
    // Ports are few, and each connection that is closed in peace keeps its own for a minute.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a socket option");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    let mut answer = Vec::new();
    if stream.write_all(request).and_then(|()| stream.shutdown(Shutdown::Write)).is_ok() {
        match stream.read_to_end(&mut answer) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("neither answered nor closed"),
            // A connection that is reset has been answered as far as it will be.
            _ => {}
        }
    }
    answer
}

/// Lines: `Accept`, `Accept-Encoding`, `Authorization`.
pub fn http_headers(input: &[u8]) {
    let mut lines = input.splitn(3, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (accept, encoding, authorization) = (line(), line(), line());
    let (accept, encoding) = (String::from_utf8_lossy(accept), String::from_utf8_lossy(encoding));
    let lower = accept.to_ascii_lowercase();
    if negotiate::format(&accept) == Format::OpenMetrics {
        assert!(lower.contains("application/openmetrics-text"), "{accept}");
    }
    if negotiate::gzip(&encoding) {
        assert!(encoding.to_ascii_lowercase().contains("gzip"), "{encoding}");
    }
    if negotiate::wants(&accept, "text/html") {
        assert!(lower.contains("text/html"), "{accept}");
    }
    credentials(authorization);
}

fn credentials(header: &[u8]) {
    assert_eq!(Credentials::of([header, header]), Credentials::None);
    let read = Credentials::of([header]);
    let again = match &read {
        Credentials::None => return,
        Credentials::Basic { user, password } => {
            assert!(!user.expose().contains(':'));
            format!("Basic {}", STANDARD.encode(format!("{}:{}", user.expose(), password.expose())))
        }
        Credentials::Bearer(token) => {
            assert!(contains(header, token.expose().as_bytes()));
            assert!(token.expose().bytes().all(|byte| byte.is_ascii_graphic()));
            format!("bearer {}", token.expose())
        }
    };
    assert_eq!(Credentials::of([again.as_bytes()]), read);
}
