//! Who may read what the agent serves: the real binary over real sockets, with certificates made for each test, and a
//! Kubernetes API server that can be wrong in every way.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::SanType;
use rustix::process::Signal;
use rustls::version::{TLS12, TLS13};
use tempfile::TempDir;

mod support;

use support::agent::Answer;
use support::api_server::{AGENT_TOKEN, ApiServer, Mood, Question};
use support::command::{kata_pulse, kata_pulse_in};
use support::exposition::Page;
use support::guarded::{Guarded, PATIENCE};
use support::pki::{Authority, Identity};
use support::tls::Client;
use support::wire;

const CONFIG: &str = "web.yaml";

/// A directory with a web configuration.
struct Site {
    directory: TempDir,
}

impl Site {
    fn new(config: &str) -> Self {
        let site = Self { directory: tempfile::tempdir().expect("a directory") };
        site.write(CONFIG, config);
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("write a file");
    }

    fn start(&self) -> Guarded {
        Guarded::start(&self.path(CONFIG), &[])
    }
}

/// TLS with a certificate of this authority, and more keys in its section.
fn secured(authority: &Authority, more: &str) -> (Site, Identity) {
    let site = Site::new(&format!("tls_server_config:\n  cert_file: tls.crt\n  key_file: tls.key\n{more}"));
    let identity = authority.server();
    identity.write(site.directory.path());
    (site, identity)
}

/// Cheap, for tests measure nothing that a dear hash would show better.
fn hash(password: &str) -> String {
    bcrypt::hash(password, 4).expect("a hash")
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// One plain request on a connection of its own.
fn ask(address: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("{method} {target} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("send");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer");
    wire::parse(&bytes)
}

fn status(address: SocketAddr, target: &str, authorization: &str) -> u16 {
    ask(address, "GET", target, &[("Authorization", authorization)]).status
}

/// A gauge or counter of the agent itself.
fn self_metric(answer: &Answer, name: &str) -> f64 {
    assert_eq!(answer.status, 200, "{}", answer.text());
    Page::parse(answer.text()).expect("a page").value(name, &[])
}

const RELOADED: &str = "kata_pulse_config_last_reload_successful";

// --- TLS ---

#[test]
fn clients_are_asked_for_certificates_as_configured() {
    let (authority, clients, strangers) = (Authority::new("server"), Authority::new("clients"), Authority::new("x"));
    let vouched = clients.client(vec![SanType::DnsName("prometheus".try_into().expect("a name"))]);
    let foreign = strangers.client(vec![SanType::DnsName("prometheus".try_into().expect("a name"))]);
    for (policy, needs_ca, [nobody, stranger, known]) in [
        ("NoClientCert", false, [true, true, true]),
        ("RequestClientCert", false, [true, true, true]),
        ("RequireAnyClientCert", false, [false, true, true]),
        ("VerifyClientCertIfGiven", true, [true, false, true]),
        ("RequireAndVerifyClientCert", true, [false, false, true]),
    ] {
        let ca = if needs_ca { "  client_ca_file: ca.crt\n" } else { "" };
        let (site, _) = secured(&authority, &format!("  client_auth_type: {policy}\n{ca}"));
        site.write("ca.crt", &clients.pem());
        let guarded = site.start();
        for versions in [[&TLS13].as_slice(), &[&TLS12]] {
            for (who, expected) in [(None, nobody), (Some(&foreign), stranger), (Some(&vouched), known)] {
                let answer = Client::with(&authority, who, versions).get(guarded.address, "/metrics");
                assert_eq!(answer.as_ref().is_ok_and(|status| *status == 200), expected, "{policy}: {answer:?}");
            }
        }
        let untrusting = Client::new(&strangers).get(guarded.address, "/metrics");
        assert!(untrusting.is_err(), "the client's own check still means something");
        guarded.agent.stop(0);
    }
}

#[test]
fn only_clients_with_a_name_on_the_list_come_in() {
    let (authority, clients) = (Authority::new("server"), Authority::new("clients"));
    let allowed = "  client_allowed_sans: [prometheus.monitoring, 'spiffe://c/ns/m/sa/p', 10.1.2.3]\n";
    let policy = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n";
    let (site, _) = secured(&authority, &format!("{policy}{allowed}"));
    site.write("ca.crt", &clients.pem());
    let guarded = site.start();
    let dns = |name: &str| SanType::DnsName(name.try_into().expect("a name"));
    let uri = |name: &str| SanType::URI(name.try_into().expect("a URI"));
    let ip = |last| SanType::IpAddress(IpAddr::V4(Ipv4Addr::new(10, 1, 2, last)));
    for (names, expected) in [
        (vec![dns("prometheus.monitoring")], true),
        (vec![dns("other"), dns("prometheus.monitoring")], true),
        (vec![uri("spiffe://c/ns/m/sa/p")], true),
        (vec![ip(3)], true),
        (vec![], false),
        (vec![dns("prometheus")], false),
        (vec![dns("Prometheus.monitoring")], false),
        (vec![dns("*.monitoring")], false),
        (vec![dns("10.1.2.3.example")], false),
        (vec![uri("spiffe://c/ns/m/sa/p2")], false),
        (vec![ip(4)], false),
    ] {
        let client = Client::shows(&authority, &clients.client(names.clone()));
        let answer = client.get(guarded.address, "/metrics");
        assert_eq!(answer.is_ok(), expected, "{names:?}: {answer:?}");
    }
}

#[test]
fn only_the_versions_and_suites_configured_are_spoken() {
    let authority = Authority::new("server");
    for (keys, tls12, tls13) in [
        ("", true, true),
        ("  min_version: TLS13\n", false, true),
        ("  max_version: TLS12\n", true, false),
        ("  min_version: TLS12\n  max_version: TLS13\n", true, true),
        ("  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n", false, true),
    ] {
        let (site, _) = secured(&authority, keys);
        let guarded = site.start();
        for (version, expected) in [(&TLS12, tls12), (&TLS13, tls13)] {
            let answer = Client::speaks(&authority, version).get(guarded.address, "/livez");
            assert_eq!(answer.is_ok(), expected, "{keys:?} {version:?}: {answer:?}");
        }
    }
    let suites = "  cipher_suites: [TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, \
                  TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]\n";
    let (site, _) = secured(&authority, suites);
    let guarded = site.start();
    let connection = Client::speaks(&authority, &TLS12).connect(guarded.address).expect("a connection");
    assert_eq!(connection.suite(), "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "the server's first choice");
    let client = Client::new(&authority);
    let both = client.clone().offers(&[b"h2", b"http/1.1"]).connect(guarded.address).expect("a connection");
    assert_eq!(both.protocol().as_deref(), Some(&b"http/1.1"[..]));
    assert!(client.offers(&[b"h2"]).connect(guarded.address).is_err(), "HTTP/2 is not spoken");
    // Plain HTTP on a port of TLS gets nothing.
    let mut plain = TcpStream::connect(guarded.address).expect("connect");
    plain.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    plain.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").expect("send");
    let mut answer = Vec::new();
    // A reset ends it as well as a close.
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/"), "{:?}", String::from_utf8_lossy(&answer));
}

/// A secret as Kubernetes mounts it: the names point through a link, which is replaced at once.
struct MountedSecret<'a> {
    directory: &'a Path,
    version: usize,
}

impl<'a> MountedSecret<'a> {
    fn new(directory: &'a Path, identity: &Identity) -> Self {
        let mut secret = Self { directory, version: 0 };
        secret.rotate(identity);
        for name in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(name), directory.join(name)).expect("a link");
        }
        secret
    }

    fn rotate(&mut self, identity: &Identity) {
        self.version += 1;
        let version = format!("..version{}", self.version);
        fs::create_dir(self.directory.join(&version)).expect("a directory");
        identity.write(&self.directory.join(&version));
        symlink(&version, self.directory.join("..data_tmp")).expect("a link");
        fs::rename(self.directory.join("..data_tmp"), self.directory.join("..data")).expect("rename a link");
    }
}

#[test]
fn a_certificate_rotates_under_load_without_a_failed_scrape() {
    const SCRAPERS: usize = 6;
    const ROTATIONS: usize = 3;
    let authority = Authority::new("server");
    let site = Site::new("tls_server_config: {cert_file: tls.crt, key_file: tls.key}\n");
    let mut secret = MountedSecret::new(site.directory.path(), &authority.server());
    let guarded = site.start();
    let (address, client) = (guarded.address, Client::new(&authority));
    let (done, scrapes, failures) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for scraper in 0..SCRAPERS {
            let (client, done, scrapes, failures) = (&client, &done, &scrapes, &failures);
            scope.spawn(move || {
                let fail = |error: String| failures.lock().expect("no panic with the lock").push(error);
                // The first keep their connection for good, the others connect for every few scrapes.
                let per_connection = if scraper < 2 { usize::MAX } else { scraper };
                while !done.load(Ordering::SeqCst) {
                    let mut connection = match client.connect(address) {
                        Ok(connection) => connection,
                        Err(error) => return fail(error),
                    };
                    for _ in 0..per_connection {
                        match connection.get("/metrics", &[]) {
                            Ok(answer) if answer.status == 200 => scrapes.fetch_add(1, Ordering::SeqCst),
                            Ok(answer) => return fail(format!("{}: {}", answer.status, answer.text())),
                            Err(error) => return fail(error),
                        };
                        if done.load(Ordering::SeqCst) {
                            break;
                        }
                    }
                }
            });
        }
        for _ in 0..ROTATIONS {
            let before = scrapes.load(Ordering::SeqCst);
            let next = authority.server();
            secret.rotate(&next);
            // Not `wait_until`: its panic would leave the scrapers running.
            let deadline = Instant::now() + PATIENCE;
            let seen = || client.connect(address).is_ok_and(|connection| connection.certificate() == next.certificate);
            while !seen() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(50));
            }
            if !seen() {
                failures.lock().expect("no panic with the lock").push("the new certificate is not served".to_owned());
            }
            while scrapes.load(Ordering::SeqCst) < before + 20 && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        done.store(true, Ordering::SeqCst);
    });
    assert_eq!(failures.into_inner().expect("no panic with the lock"), [""; 0]);
    assert!(scrapes.into_inner() >= 20 * ROTATIONS);
    assert_eq!(guarded.logged("web configuration not reloaded"), 0, "no rotation was seen half done");
    assert_eq!(guarded.logged("msg=\"web configuration reloaded\""), ROTATIONS);
}

#[test]
fn a_bad_new_certificate_keeps_the_old_one_and_says_so_once() {
    let authority = Authority::new("server");
    let (site, old) = secured(&authority, "");
    let guarded = site.start();
    let client = Client::new(&authority);
    let served = || client.connect(guarded.address).expect("a connection").certificate();
    let page = || client.exchange(guarded.address, "GET", "/metrics?nothing", &[]).expect("an answer");
    assert_eq!(self_metric(&page(), RELOADED), 1.0);
    let other = authority.server();
    // A key of somebody else, a broken one, none, and no file at all.
    for (number, bad) in
        [Some(other.key_pem()), Some(old.key_pem()[..80].to_owned()), Some(String::new()), None].into_iter().enumerate()
    {
        match bad {
            Some(text) => site.write("tls.key", &text),
            None => fs::remove_file(site.path("tls.key")).expect("remove the key"),
        }
        guarded.agent.wait_until("it says so", PATIENCE, || {
            assert_eq!(served(), old.certificate);
            guarded.logged("web configuration not reloaded") == number + 1
        });
    }
    // The number of warnings is that of changes, however often somebody connects and the files are looked at.
    guarded.agent.signal(Signal::HUP);
    guarded
        .agent
        .wait_until("SIGHUP has been followed", PATIENCE, || guarded.logged("msg=\"configuration reloaded\"") == 1);
    assert_eq!(guarded.logged("web configuration not reloaded"), 4);
    // Pages are kept as long as their collection in these tests: only a new view has new numbers.
    let page = client.exchange(guarded.address, "GET", "/metrics", &[("Accept", "application/openmetrics-text")]);
    assert!(page.expect("an answer").text().contains(&format!("\n{RELOADED} 0\n")));
    other.write(site.directory.path());
    guarded.agent.wait_until("the new certificate is served", PATIENCE, || served() == other.certificate);
    assert_eq!(guarded.logged("web configuration not reloaded"), 4);
    guarded.assert_never_logged(&[&old.key_material(), &other.key_material(), "PRIVATE KEY"]);
}

#[test]
fn inline_certificates_work_as_files_do() {
    let (authority, clients) = (Authority::new("server"), Authority::new("clients"));
    let identity = authority.server();
    let indented = |pem: &str| pem.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let site = Site::new(&format!(
        "tls_server_config:\n  cert: |\n{}  key: |\n{}  client_ca: |\n{}  client_auth_type: RequireAndVerifyClientCert\n",
        indented(&identity.certificate_pem()),
        indented(&identity.key_pem()),
        indented(&clients.pem()),
    ));
    let guarded = site.start();
    assert_eq!(Client::shows(&authority, &clients.client(vec![])).get(guarded.address, "/metrics"), Ok(200));
    assert!(Client::new(&authority).get(guarded.address, "/metrics").is_err());
    guarded.assert_never_logged(&[&identity.key_material(), "PRIVATE KEY"]);
}

#[test]
fn a_client_that_never_finishes_its_handshake_is_let_go() {
    let authority = Authority::new("server");
    let (site, _) = secured(&authority, "");
    let guarded = site.start();
    let began = Instant::now();
    let mut idle: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(guarded.address).expect("connect")).collect();
    for stream in &mut idle {
        // The beginning of a record that never ends.
        stream.write_all(&[22, 3, 1, 1, 0, 1]).expect("send");
        stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    }
    assert_eq!(Client::new(&authority).get(guarded.address, "/metrics"), Ok(200), "others are served meanwhile");
    for stream in &mut idle {
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        assert!(ended.is_ok() || ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    }
    assert!(began.elapsed() < PATIENCE);
}

#[test]
fn tls_without_a_certificate_makes_one_and_tells_its_fingerprint() {
    let guarded = Guarded::start_in(&[], &["--tls-self-signed".to_owned()]);
    let connection = Client::trusting().connect(guarded.address).expect("a connection");
    let digest = ring::digest::digest(&ring::digest::SHA256, &connection.certificate());
    let fingerprint: Vec<String> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    assert_eq!(guarded.logged(&format!("sha256={}", fingerprint.join(":"))), 1);
    assert_eq!(Client::trusting().get(guarded.address, "/metrics"), Ok(200));
    let listen = guarded.address.to_string();
    kata_pulse(["healthcheck", "--tls-self-signed", "--listen-address", &listen]).expect_code(0);
    let health = guarded.health.to_string();
    kata_pulse(["healthcheck", "--listen-address", "127.0.0.1:1", "--health-listen-address", &health]).expect_code(0);
    kata_pulse(["healthcheck", "--listen-address", &listen]).expect_code(1);

    let (site, _) = secured(&Authority::new("server"), "");
    let both = ["--tls-self-signed", "--web-config", &site.path(CONFIG).display().to_string()].map(str::to_owned);
    let refused = "kata-pulse: tls-self-signed: the web configuration has a certificate already\n";
    assert_eq!(kata_pulse([&["check-config".to_owned()], &both[..]].concat()).expect_code(2).stderr, refused);
    assert_eq!(kata_pulse(&both).expect_code(2).stderr.lines().last(), Some(refused.trim_end()));
}

#[test]
fn the_health_listener_serves_health_and_nothing_else() {
    let (authority, clients) = (Authority::new("server"), Authority::new("clients"));
    let (site, _) = secured(
        &authority,
        &format!(
            "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\nbasic_auth_users: {{a: '{}'}}\n",
            hash("x")
        ),
    );
    site.write("ca.crt", &clients.pem());
    let guarded = site.start();
    for path in ["/livez", "/readyz", "/healthz", "/readyz?verbose"] {
        assert_eq!(ask(guarded.health, "GET", path, &[]).status, 200, "{path}");
        assert_eq!(ask(guarded.health, "HEAD", path, &[]).status, 200, "{path}");
        assert_eq!(ask(guarded.health, "POST", path, &[]).status, 405, "{path}");
    }
    for path in ["/", "/metrics", "/metrics/cadvisor", "/sandboxes", "/livez/../metrics", "//metrics", "/livez/metrics"]
    {
        assert_eq!(ask(guarded.health, "GET", path, &[]).status, 404, "{path}");
        assert_eq!(status(guarded.health, path, &basic("a", "x")), 404, "{path}");
    }
    // Health needs no password on the main listener, and a client's certificate all the same.
    assert_eq!(Client::shows(&authority, &clients.client(vec![])).get(guarded.address, "/livez"), Ok(200));
    assert!(Client::new(&authority).get(guarded.address, "/livez").is_err());
    let (config, listen) = (site.path(CONFIG).display().to_string(), guarded.address.to_string());
    let check = kata_pulse(["healthcheck", "--web-config", &config, "--listen-address", &listen]).expect_code(1);
    assert!(check.stderr.starts_with("kata-pulse: ask 127.0.0.1:"), "{}", check.stderr);
}

// --- passwords ---

#[test]
fn the_right_password_opens_and_nothing_else_does() {
    let (alice, bob) = (hash("wonderland-7"), hash("builder-77"));
    let site = Site::new(&format!("basic_auth_users:\n  alice: {alice}\n  bob: {bob}\n"));
    let guarded = site.start();
    let address = guarded.address;
    for path in
        ["/", "/metrics", "/metrics/cadvisor", "/metrics/kata", "/metrics/resource", "/sandboxes", "/stats/summary"]
    {
        let refused = ask(address, "GET", path, &[]);
        assert_eq!((refused.status, refused.text()), (401, "credentials are needed, or these are wrong\n"), "{path}");
        assert_eq!(refused.header("www-authenticate"), "Basic realm=\"kata-pulse\", charset=\"UTF-8\"");
        for _ in 0..2 {
            assert_eq!(status(address, path, &basic("alice", "wonderland-7")), 200, "{path}");
            assert_eq!(status(address, path, &basic("bob", "builder-77")), 200, "{path}");
        }
        for (user, password) in [("alice", "builder-77"), ("alice", ""), ("", "wonderland-7"), ("mallory", "x")] {
            assert_eq!(status(address, path, &basic(user, password)), 401, "{path} {user}");
        }
    }
    let right = basic("alice", "wonderland-7");
    let odd = ["", "Basic", "Basic !", "Bearer wonderland-7", "Digest username=\"alice\"", &right.replace(' ', "")];
    for header in odd {
        assert_eq!(status(address, "/metrics", header), 401, "{header}");
    }
    let twice = [("Authorization", right.as_str()), ("Authorization", right.as_str())];
    assert_eq!(ask(address, "GET", "/metrics", &twice).status, 401, "two headers");
    assert_eq!(status(address, "/none", ""), 401, "what does not exist is not told to strangers");
    assert_eq!(status(address, "/none", &right), 404);
    let encoded = right.trim_start_matches("Basic ");
    guarded.assert_never_logged(&["wonderland-7", "builder-77", encoded, &alice[7..], &bob[7..]]);
}

#[test]
fn no_way_of_writing_a_path_gets_around_the_password() {
    let site = Site::new(&format!("basic_auth_users: {{alice: '{}'}}\n", hash("wonderland-7")));
    let guarded = site.start();
    for target in [
        "//metrics",
        "/metrics/",
        "/metrics/../livez",
        "/livez/../metrics",
        "/livez/..%2fmetrics",
        "/livez%2f..%2fmetrics",
        "/livez/%2e%2e/metrics",
        "/./metrics",
        "/%6Detrics",
        "/%6d%65%74%72%69%63%73",
        "/metrics%00/livez",
        "/metrics;/livez",
        "/livez;/metrics",
        "/LIVEZ",
        "/%6Civez",
        "//livez",
        "/livez/",
        "/livez\\..\\metrics",
        "/metrics?/livez",
        "/metrics#/livez",
        "http://node/metrics",
        "http://livez/metrics",
        "http://node//livez",
        "http:///livez/../metrics",
        "*",
    ] {
        for method in ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND", "CONNECT"] {
            let answer = ask(guarded.address, method, target, &[("X-Original-URL", "/livez")]);
            // What is no request at all is refused earlier.
            assert!(matches!(answer.status, 401 | 400), "{method} {target}: {}", answer.status);
            assert!(!String::from_utf8_lossy(&answer.body).contains("container_"), "{method} {target}");
        }
    }
    for target in ["/livez", "/readyz", "/healthz", "/livez?x=/metrics", "http://node/livez"] {
        let answer = ask(guarded.address, "GET", target, &[]);
        assert_eq!((answer.status, answer.text()), (200, "ok\n"), "{target}");
    }
}

#[test]
fn a_password_changes_without_a_restart() {
    let site = Site::new(&format!("basic_auth_users: {{alice: '{}'}}\n", hash("old-secret")));
    let guarded = site.start();
    let with = |password: &str| status(guarded.address, "/metrics", &basic("alice", password));
    assert_eq!((with("old-secret"), with("new-secret")), (200, 401));
    site.write(CONFIG, &format!("basic_auth_users: {{alice: '{}'}}\n", hash("new-secret")));
    guarded.agent.wait_until("the new password opens", PATIENCE, || with("new-secret") == 200);
    assert_eq!(with("old-secret"), 401, "what was remembered of the old one is forgotten");
    // Bad files change nothing, and a good one after them is taken by SIGHUP too.
    let bad = ["basic_auth_users: {alice: new-secret}\n", "basic_auth_user: {}\n", "basic_auth_users: [new-secret\n"];
    for (number, bad) in bad.into_iter().enumerate() {
        site.write(CONFIG, bad);
        guarded.agent.signal(Signal::HUP);
        guarded.agent.wait_until("it says so", PATIENCE, || {
            assert_eq!((with("new-secret"), with("old-secret")), (200, 401));
            guarded.logged("web configuration not reloaded") == number + 1
        });
    }
    site.write(CONFIG, "");
    guarded.agent.wait_until("an empty file opens nothing", PATIENCE, || {
        assert_eq!(status(guarded.address, "/metrics", ""), 401);
        guarded.logged("basic_auth_users went, which needs a restart") == 1
    });
    site.write(CONFIG, &format!("basic_auth_users: {{bob: '{}'}}\n", hash("builder-77")));
    guarded.agent.signal(Signal::HUP);
    let bob = basic("bob", "builder-77");
    guarded.agent.wait_until("bob comes in", PATIENCE, || status(guarded.address, "/metrics", &bob) == 200);
    assert_eq!(with("new-secret"), 401);
    guarded.assert_never_logged(&["old-secret", "new-secret", "builder-77", "$2b$04$"]);
}

/// Nothing but the time that an answer takes could tell whether there is such a user.
#[test]
fn an_unknown_user_costs_as_much_as_a_wrong_password() {
    const ROUNDS: usize = 25;
    let site =
        Site::new(&format!("basic_auth_users: {{alice: '{}'}}\n", bcrypt::hash("wonderland-7", 6).expect("a hash")));
    let guarded = site.start();
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        let (known, unknown) = (basic("alice", &format!("wrong{round}")), basic("mallo", &format!("wrong{round}")));
        for (times, header) in times.iter_mut().zip([known.as_str(), &unknown, ""]) {
            let began = Instant::now();
            assert_eq!(status(guarded.address, "/metrics", header), 401);
            times.push(began.elapsed().as_secs_f64());
        }
    }
    let [known, unknown, none] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    });
    let ratio = known / unknown;
    println!("median of {ROUNDS}: known {known:.4} s, unknown {unknown:.4} s, no credentials {none:.4} s");
    assert!((0.5..2.0).contains(&ratio), "known {known} s, unknown {unknown} s, no credentials {none} s");
    assert!(known > none, "a password is really verified: known {known} s, no credentials {none} s");
}

#[test]
fn a_flood_of_wrong_passwords_stalls_neither_scrapes_nor_health() {
    let site =
        Site::new(&format!("basic_auth_users: {{alice: '{}'}}\n", bcrypt::hash("wonderland-7", 7).expect("a hash")));
    let guarded = site.start();
    let (address, right) = (guarded.address, basic("alice", "wonderland-7"));
    assert_eq!(status(address, "/metrics", &right), 200);
    let (done, refused) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for flooder in 0..30 {
            let (done, refused) = (&done, &refused);
            scope.spawn(move || {
                let mut round = 0;
                while !done.load(Ordering::SeqCst) {
                    round += 1;
                    let answer = ask(
                        address,
                        "GET",
                        "/metrics",
                        &[("Authorization", &basic("alice", &format!("{flooder}-{round}")))],
                    );
                    match answer.status {
                        401 => {}
                        503 => {
                            assert_eq!(
                                (answer.text(), answer.header("retry-after")),
                                ("too many passwords to verify\n", "1")
                            );
                            refused.fetch_add(1, Ordering::SeqCst);
                        }
                        other => panic!("{other}: {}", answer.text()),
                    }
                }
            });
        }
        let deadline = Instant::now() + PATIENCE;
        let mut scrapes = Vec::new();
        while (refused.load(Ordering::SeqCst) < 20 || scrapes.len() < 20) && Instant::now() < deadline {
            scrapes.push((status(address, "/metrics", &right), status(address, "/livez", "")));
        }
        done.store(true, Ordering::SeqCst);
        assert!(refused.load(Ordering::SeqCst) >= 20, "the flood is not sent away");
        assert!(scrapes.iter().all(|scrape| *scrape == (200, 200)), "{scrapes:?}");
    });
}

// --- the API server's word ---

fn reviewed(api: &ApiServer, more: &[&str]) -> Guarded {
    let account = api.account().display().to_string();
    let mut arguments = ["--auth-kubernetes", "--service-account-dir", &account].map(str::to_owned).to_vec();
    arguments.extend(more.iter().map(ToString::to_string));
    Guarded::start_in(&api.environment(), &arguments)
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// The questions about a token, and those about a permission.
fn count(asked: &[Question]) -> (usize, usize) {
    let tokens = asked.iter().filter(|question| question.path.ends_with("/tokenreviews")).count();
    (tokens, asked.len() - tokens)
}

#[test]
fn the_api_server_decides_and_its_answers_are_remembered() {
    let api = ApiServer::start();
    api.knows("good-token-1a2b", "system:serviceaccount:monitoring:prometheus");
    api.knows("idle-token-3c4d", "system:serviceaccount:default:default");
    api.grants("system:serviceaccount:monitoring:prometheus", "/metrics");
    let guarded = reviewed(&api, &[]);
    let address = guarded.address;
    let nobody = ask(address, "GET", "/metrics", &[]);
    assert_eq!((nobody.status, nobody.header("www-authenticate")), (401, "Bearer"));
    assert_eq!(status(address, "/metrics", &basic("good-token-1a2b", "good-token-1a2b")), 401);
    assert_eq!(status(address, "/livez", ""), 200);
    assert_eq!(count(&api.asked()), (0, 0), "nothing of that is a question");

    for path in ["/metrics", "/metrics/cadvisor", "/metrics/kata", "/metrics/resource"] {
        for _ in 0..3 {
            assert_eq!(status(address, path, &bearer("good-token-1a2b")), 200, "{path}");
        }
    }
    assert_eq!(ask(address, "HEAD", "/metrics", &[("Authorization", &bearer("good-token-1a2b"))]).status, 200);
    assert_eq!(count(&api.asked()), (1, 1), "one permission for all metrics, asked once");
    let asked = api.asked();
    assert!(asked.iter().all(|question| question.authorization == bearer(AGENT_TOKEN)));
    assert_eq!(asked[0].body["spec"]["token"], "good-token-1a2b");
    let spec = &asked[1].body["spec"];
    assert_eq!(spec["user"], "system:serviceaccount:monitoring:prometheus");
    assert_eq!(spec["groups"][0], "system:authenticated");
    assert_eq!(spec["extra"]["authentication.kubernetes.io/pod-name"][0], "p");
    assert_eq!(spec["nonResourceAttributes"], serde_json::json!({ "path": "/metrics", "verb": "get" }));

    let forbidden = ask(address, "GET", "/sandboxes", &[("Authorization", &bearer("good-token-1a2b"))]);
    assert_eq!((forbidden.status, forbidden.text()), (403, "not allowed to read this path\n"));
    api.grants("system:serviceaccount:monitoring:prometheus", "/sandboxes");
    assert_eq!(status(address, "/sandboxes", &bearer("good-token-1a2b")), 403, "a refusal is remembered");
    for _ in 0..2 {
        assert_eq!(status(address, "/metrics", &bearer("idle-token-3c4d")), 403);
        assert_eq!(status(address, "/metrics", &bearer("expired-token-5e6f")), 401);
    }
    assert_eq!(count(&api.asked()), (4, 3));
    let again = "a refusal is forgotten after ten seconds";
    guarded.agent.wait_until(again, PATIENCE, || status(address, "/sandboxes", &bearer("good-token-1a2b")) == 200);
    let encoded = status(address, "/%6Detrics", &bearer("good-token-1a2b"));
    assert_eq!(encoded, 403, "another way of writing a path is another permission");
    // Revoked: good here until the permission is forgotten, which is documented, and nowhere else.
    api.forgets("good-token-1a2b");
    assert_eq!(status(address, "/metrics", &bearer("good-token-1a2b")), 200);
    assert_eq!(status(address, "/", &bearer("good-token-1a2b")), 401);
    // The agent's own token rotates.
    fs::write(api.account().join("token"), "second-token-9z8y").expect("write a token");
    assert_eq!(status(address, "/metrics", &bearer("another-token-7g8h")), 401);
    assert_eq!(api.asked().last().expect("a question").authorization, bearer("second-token-9z8y"));
    guarded.assert_never_logged(&[
        "good-token-1a2b",
        "idle-token-3c4d",
        "expired-token-5e6f",
        "another-token-7g8h",
        "second-token-9z8y",
        AGENT_TOKEN,
    ]);
}

#[test]
fn nobody_comes_in_while_the_api_server_does_not_answer_properly() {
    let api = ApiServer::start();
    api.knows("known-token-1a2b", "u");
    api.grants("u", "/metrics");
    let guarded = reviewed(&api, &[]);
    let address = guarded.address;
    assert_eq!(status(address, "/metrics", &bearer("known-token-1a2b")), 200);
    let lie = |status: &str| format!(r#"{{"kind":"TokenReview","status":{status}}}"#);
    let yes = r#"{"kind":"SubjectAccessReview","status":{"allowed":true}}"#.to_owned();
    for (number, mood) in [
        Mood::Gone,
        Mood::Hung,
        Mood::Flooding,
        Mood::HonestBut(403),
        Mood::HonestBut(302),
        Mood::HonestBut(204),
        Mood::Saying(500, String::new()),
        Mood::Saying(201, String::new()),
        Mood::Saying(201, "true".to_owned()),
        Mood::Saying(201, lie("{\"authenticated\":\"true\",\"user\":{\"username\":\"u\"}}")),
        Mood::Saying(201, lie("{\"authenticated\":true}")),
        // Good for the first question, and no answer to the second.
        Mood::Saying(201, lie(r#"{"authenticated":true,"user":{"username":"u"}}"#)),
        Mood::Saying(201, yes),
    ]
    .into_iter()
    .enumerate()
    {
        api.behaves(mood.clone());
        let token = format!("unseen-token-{number:04}");
        // Good, if only the API server said so.
        api.knows(&token, "u");
        let answer = ask(address, "GET", "/metrics", &[("Authorization", &bearer(&token))]);
        assert_eq!((answer.status, answer.text()), (503, "the API server cannot be asked\n"), "{mood:?}");
        assert_eq!(status(address, "/metrics", &bearer("known-token-1a2b")), 200, "allowed a moment ago: {mood:?}");
        assert_eq!(status(address, "/livez", ""), 200, "{mood:?}");
        // A second has passed before anybody asks again.
        api.behaves(Mood::Honest);
        let recovered = format!("fresh-token-{number:04}");
        guarded.agent.wait_until("it asks again", PATIENCE, || status(address, "/metrics", &bearer(&recovered)) == 401);
    }
    assert_eq!(guarded.logged("level=warn msg=\"the API server cannot be asked"), 13, "one warning for each time");
    guarded.assert_never_logged(&["known-token", "unseen-token", "fresh-token", AGENT_TOKEN]);
}

#[test]
fn an_api_server_of_another_authority_is_not_told_any_token() {
    let api = ApiServer::start();
    api.knows("known-token-1a2b", "u");
    api.grants("u", "/metrics");
    fs::write(api.account().join("ca.crt"), Authority::new("another").pem()).expect("write a CA");
    let guarded = reviewed(&api, &[]);
    assert_eq!(status(guarded.address, "/metrics", &bearer("known-token-1a2b")), 503);
    assert_eq!(count(&api.asked()), (0, 0));
    assert_eq!(guarded.logged("UnknownIssuer"), 1, "the log says why");
}

#[test]
fn either_a_password_or_a_token_suffices() {
    let api = ApiServer::start();
    api.knows("good-token-1a2b", "u");
    api.grants("u", "/metrics");
    let site = Site::new(&format!("basic_auth_users: {{alice: '{}'}}\n", hash("wonderland-7")));
    let guarded = reviewed(&api, &["--web-config", &site.path(CONFIG).display().to_string()]);
    assert_eq!(status(guarded.address, "/metrics", &basic("alice", "wonderland-7")), 200);
    assert_eq!(status(guarded.address, "/metrics", &bearer("good-token-1a2b")), 200);
    assert_eq!(status(guarded.address, "/metrics", &basic("alice", "good-token-1a2b")), 401);
    assert_eq!(status(guarded.address, "/metrics", &bearer("wonderland-7")), 401);
    assert_eq!(status(guarded.address, "/metrics", ""), 401);
    assert_eq!(count(&api.asked()), (2, 1), "passwords are nothing to the API server");
    guarded.assert_never_logged(&["wonderland-7", "good-token-1a2b"]);
}

#[test]
fn outside_of_a_cluster_the_api_server_cannot_be_wanted() {
    for command in [None, Some("check-config")] {
        let arguments: Vec<&str> = command.into_iter().chain(["--auth-kubernetes"]).collect();
        let refused = kata_pulse(&arguments).expect_code(2);
        let last = refused.stderr.lines().last();
        let expected = "kata-pulse: auth-kubernetes: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set";
        assert_eq!(last, Some(expected));
    }
    let inside = [("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("KUBERNETES_SERVICE_PORT", "443")];
    kata_pulse_in(&inside, ["check-config", "--auth-kubernetes=true"]).expect_code(0);
}

// --- headers and limits ---

#[test]
fn configured_headers_come_with_every_answer() {
    let headers = "http_server_config: {headers: {X-Frame-Options: deny, X-Content-Type-Options: nosniff}}\n";
    let site = Site::new(&format!("{headers}basic_auth_users: {{alice: '{}'}}\n", hash("wonderland-7")));
    let guarded = site.start();
    let right = basic("alice", "wonderland-7");
    for (path, authorization, expected) in
        [("/metrics", right.as_str(), 200), ("/metrics", "", 401), ("/none", right.as_str(), 404), ("/livez", "", 200)]
    {
        let answer = ask(guarded.address, "GET", path, &[("Authorization", authorization)]);
        assert_eq!(answer.status, expected, "{path}");
        assert_eq!((answer.header("x-frame-options"), answer.header("x-content-type-options")), ("deny", "nosniff"));
    }
    let users = format!("basic_auth_users: {{alice: '{}'}}\n", hash("wonderland-7"));
    site.write(CONFIG, &format!("http_server_config: {{headers: {{X-Frame-Options: sameorigin}}}}\n{users}"));
    guarded.agent.wait_until("the new headers come", PATIENCE, || {
        ask(guarded.address, "GET", "/metrics", &[]).header("x-frame-options") == "sameorigin"
    });
}

#[test]
fn more_requests_than_the_limit_are_sent_away_but_health_is_not() {
    let site = Site::new("rate_limit: {interval: 1h, burst: 3}\n");
    let guarded = site.start();
    let statuses: Vec<u16> = (0..5).map(|_| ask(guarded.address, "GET", "/metrics", &[]).status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    let refused = ask(guarded.address, "GET", "/none", &[]);
    assert_eq!((refused.status, refused.text()), (429, "more requests than rate_limit allows\n"));
    assert_eq!(refused.header("retry-after"), "1");
    for _ in 0..10 {
        assert_eq!(ask(guarded.address, "GET", "/livez", &[]).status, 200);
        assert_eq!(ask(guarded.health, "GET", "/readyz", &[]).status, 200);
    }
    site.write(CONFIG, "rate_limit: {interval: 0}\n");
    guarded
        .agent
        .wait_until("there is no limit", PATIENCE, || ask(guarded.address, "GET", "/metrics", &[]).status == 200);
}

// --- what is refused before anything is served ---

/// What stands in the file, and in which words it is refused. Both this agent and promtool must refuse each of them.
const BAD: &[(&str, &str)] = &[
    (
        "tls_server_config: {cert_file: tls.crt, key_file: tls.key, cipher: [x]}\n",
        "line 1, column 60: unknown key \"cipher\"",
    ),
    ("basic_auth_user: {alice: CANARY}\n", "unknown key \"basic_auth_user\""),
    ("basic_auth_users: {alice: CANARY}\n", "basic_auth_users: \"alice\": not a bcrypt hash"),
    ("basic_auth_users: [CANARY]\n", "line 1, column 19: "),
    ("tls_server_config: {cert_file: tls.crt}\n", "tls_server_config: neither key nor key_file"),
    ("tls_server_config: {key_file: tls.key}\n", "tls_server_config: neither cert nor cert_file"),
    ("tls_server_config: {cert_file: none.crt, key_file: tls.key}\n", "cert_file "),
    ("tls_server_config: {cert_file: tls.crt, key_file: other.key}\n", "the key does not belong to the certificate"),
    ("tls_server_config: {cert_file: tls.key, key_file: tls.key}\n", "cert: no certificate in PEM"),
    (
        "tls_server_config: {cert_file: tls.crt, key_file: tls.key, min_version: TLS9}\n",
        "unknown value, known are TLS10",
    ),
    ("tls_server_config: {cert_file: tls.crt, key_file: tls.key, cipher_suites: [X]}\n", "cipher_suites: no \"X\""),
    (
        "tls_server_config: {cert_file: tls.crt, key_file: tls.key, curve_preferences: [X]}\n",
        "curve_preferences: no \"X\"",
    ),
    ("tls_server_config: {cert_file: tls.crt, key_file: tls.key, client_auth_type: X}\n", "unknown value, known are "),
    (
        "tls_server_config: {cert_file: tls.crt, key_file: tls.key, client_ca_file: tls.crt}\n",
        "client_ca needs a client_auth_type that verifies",
    ),
    ("http_server_config: {headers: {Set-Cookie: CANARY}}\n", "\"Set-Cookie\" cannot be set"),
    ("http_server_config: {headers: {X-Frame-Options: CANARY}}\n", "X-Frame-Options: must be deny or sameorigin"),
    ("http_server_config: {http2: CANARY}\n", "line 1, column 29: "),
    ("not yaml: [CANARY\n", "line "),
];

/// Files that this agent and promtool take.
const GOOD: &[&str] = &[
    "",
    "tls_server_config: {cert_file: tls.crt, key_file: tls.key}\n",
    "tls_server_config:\n  cert_file: tls.crt\n  key_file: tls.key\n  client_auth_type: RequireAndVerifyClientCert\n  \
     client_ca_file: tls.crt\n  min_version: TLS12\n  max_version: TLS13\n  prefer_server_cipher_suites: true\n  \
     cipher_suites: [TLS_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]\n  \
     curve_preferences: [CurveP256, X25519]\nhttp_server_config:\n  http2: false\n  headers:\n    \
     X-Frame-Options: deny\n    X-Content-Type-Options: nosniff\n    X-XSS-Protection: '1'\n    \
     Strict-Transport-Security: max-age=1\nbasic_auth_users:\n  \
     alice: $2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi\n",
];

fn promtool(path: &Path) -> std::process::Output {
    std::process::Command::new("promtool")
        .args(["check", "web-config"])
        .arg(path)
        .output()
        .expect("promtool, of Debian's package prometheus")
}

#[test]
fn promtool_takes_and_refuses_the_same_files() {
    let site = Site::new("");
    let authority = Authority::new("server");
    authority.server().write(site.directory.path());
    site.write("other.key", &authority.server().key_pem());
    let path = site.path(CONFIG);
    let check = || kata_pulse(["check-config", "--web-config", &path.display().to_string()]);
    for good in GOOD {
        site.write(CONFIG, good);
        let checked = check().expect_code(0);
        assert!(checked.stdout.contains(&format!("web-config: {}", path.display())), "{}", checked.stdout);
        assert!(!checked.stdout.contains("$2y$"), "{}", checked.stdout);
        let theirs = promtool(&path);
        assert!(theirs.status.success(), "{good}: {}", String::from_utf8_lossy(&theirs.stderr));
    }
    for (bad, problem) in BAD {
        site.write(CONFIG, bad);
        let refused = check().expect_code(2);
        assert_eq!((refused.stdout.as_str(), refused.stderr.lines().count()), ("", 1), "{bad}: {}", refused.stderr);
        assert!(
            refused.stderr.starts_with("kata-pulse: ") && refused.stderr.contains(problem),
            "{bad}: {}",
            refused.stderr
        );
        assert!(!refused.stderr.contains("CANARY"), "{bad}: {}", refused.stderr);
        let theirs = promtool(&path);
        assert!(!theirs.status.success(), "{bad}: promtool takes it: {}", String::from_utf8_lossy(&theirs.stdout));
        let started = kata_pulse(["--listen-address", "127.0.0.1:0", "--web-config", &path.display().to_string()]);
        let started = started.expect_code(2);
        assert!(started.stderr.contains(problem) && !started.stderr.contains("CANARY"), "{bad}: {}", started.stderr);
    }
    let missing = kata_pulse(["check-config", "--web-config", "/nowhere/web.yaml"]).expect_code(2);
    assert_eq!(
        missing.stderr,
        "kata-pulse: web configuration /nowhere/web.yaml: No such file or directory (os error 2)\n"
    );
}
