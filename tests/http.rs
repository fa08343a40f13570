//! The routes of the real binary over real sockets: what each answers, in which form, to whom, and what it refuses.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use kata_pulse_simulator::cri::Pod;
use serde_json::Value;

mod support;

use support::agent::{Agent, Answer};
use support::exposition::Page;
use support::gate::Gate;
use support::host::Host;
use support::node::{NamedNode, row_of};
use support::wire::{Wire, addresses, exchange};

/// How long the agent may take for what it does by itself.
const PATIENCE: Duration = Duration::from_secs(20);

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores";
const PLAIN: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// Every path there is.
const PATHS: [&str; 10] = [
    "/",
    "/metrics",
    "/metrics/cadvisor",
    "/metrics/resource",
    "/stats/summary",
    "/sandboxes",
    "/processes",
    "/livez",
    "/readyz",
    "/healthz",
];

/// What Prometheus 2 and 3 ask for.
const PROMETHEUS_2: &str = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
const PROMETHEUS_3: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";

/// An agent that keeps its first collection, over a node without pods, and has every path.
fn quiet_agent(host: &Host) -> Agent {
    start(host.flags(), &["--max-age-secs", "3600", "--enable-collectors", "top"])
}

/// An agent that collects for every scrape.
fn eager_agent(host: &Host) -> Agent {
    start(host.flags(), &["--max-age-secs", "0"])
}

fn start(mut flags: Vec<std::ffi::OsString>, more: &[&str]) -> Agent {
    flags.extend(more.iter().map(Into::into));
    Agent::start(flags)
}

/// A refusal has its reason in one line of plain text.
#[track_caller]
fn assert_refused(answer: &Answer, status: u16, reason: &str) {
    assert_eq!((answer.status, answer.text()), (status, format!("{reason}\n").as_str()));
    assert_eq!(answer.header("content-type"), PLAIN);
}

fn inflated(answer: &Answer) -> String {
    assert_eq!(answer.header("content-encoding"), "gzip");
    let mut text = String::new();
    GzDecoder::new(&*answer.body).read_to_string(&mut text).expect("gzip");
    text
}

fn collections(agent: &Agent) -> f64 {
    agent.page("/metrics").value("kata_pulse_collections_total", &[])
}

#[test]
fn formats_follow_accept() {
    let host = Host::v2();
    let agent = quiet_agent(&host);
    for (accept, content_type) in [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/*", TEXT),
        ("text/plain", TEXT),
        ("text/plain;version=0.0.4", TEXT),
        (BROWSER, TEXT),
        ("application/json", TEXT),
        ("application/openmetrics-text;version=2.0.0", TEXT),
        ("application/openmetrics-text;q=0, */*;q=0.1", TEXT),
        ("application/openmetrics-text;q=0.4, text/plain;q=0.5", TEXT),
        (";;q=,,", TEXT),
        ("application/openmetrics-text", OPEN_METRICS),
        ("APPLICATION/OpenMetrics-Text; Version=1.0.0", OPEN_METRICS),
        ("text/plain;q=0.4, application/openmetrics-text;q=0.5", OPEN_METRICS),
        (PROMETHEUS_2, OPEN_METRICS),
        (PROMETHEUS_3, OPEN_METRICS),
    ] {
        for path in ["/metrics", "/metrics/cadvisor", "/metrics/resource"] {
            let answer = agent.get_with(path, &[("Accept", accept)]);
            assert_eq!(answer.status, 200, "{path} {accept}");
            assert_eq!(answer.header("content-type"), content_type, "{path} {accept}");
            assert_eq!(answer.text().ends_with("\n# EOF\n"), content_type == OPEN_METRICS, "{path} {accept}");
            assert_eq!(answer.header("vary"), "Accept, Accept-Encoding");
        }
    }
    let bare = exchange(&agent, "GET", "/metrics", &[]);
    assert_eq!((bare.status, bare.header("content-type")), (200, TEXT), "without any Accept");
}

#[test]
fn bodies_are_compressed_when_asked_and_only_then() {
    let host = Host::v2();
    let agent = quiet_agent(&host);
    // The smaller page repeats itself less.
    for (path, times) in [("/metrics/cadvisor", 4), ("/metrics/resource", 2)] {
        is_compressed_when_asked(&agent, path, times);
    }
}

/// So many times at least; for pages on which nothing moves while a collection is kept.
#[track_caller]
fn is_compressed_when_asked(agent: &Agent, path: &str, times: usize) {
    let plain = exchange(agent, "GET", path, &[]);
    for accept in ["gzip", "GZIP", "x-gzip", "gzip;q=0.5, *;q=0", "br, zstd;q=0.9, gzip;q=0.8", "gzip, identity"] {
        let answer = exchange(agent, "GET", path, &[("Accept-Encoding", accept)]);
        assert_eq!(inflated(&answer), plain.text(), "{accept}");
        assert_eq!(answer.header("content-type"), TEXT);
        assert!(answer.body.len() < plain.body.len() / times, "{} of {} bytes", answer.body.len(), plain.body.len());
    }
    for accept in ["", "identity", "br", "*", "gzip;q=0", "gzip;q=0.0, br", "identity, gzip;q=0.5", "gzip;q=x"] {
        let answer = exchange(agent, "GET", path, &[("Accept-Encoding", accept)]);
        assert_eq!(answer.header("content-encoding"), "", "{accept}");
        assert_eq!(answer.text(), plain.text(), "{accept}");
    }
    let both = exchange(agent, "GET", path, &[("Accept-Encoding", "gzip"), ("Accept", PROMETHEUS_3)]);
    let open_metrics = exchange(agent, "GET", path, &[("Accept", PROMETHEUS_3)]);
    assert_eq!((inflated(&both).as_str(), both.header("content-type")), (open_metrics.text(), OPEN_METRICS));
}

#[test]
fn head_has_the_head_and_no_body() {
    let host = Host::v2();
    let agent = quiet_agent(&host);
    for path in PATHS {
        let got = exchange(&agent, "GET", path, &[]);
        let head = exchange(&agent, "HEAD", path, &[]);
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert!(!got.body.is_empty(), "{path}");
        assert_eq!(head.header("content-type"), got.header("content-type"), "{path}");
        // The page about the agent itself grows from one request to the next.
        if path != "/metrics" {
            assert_eq!(head.header("content-length"), got.header("content-length"), "{path}");
        }
    }
    let missing = exchange(&agent, "HEAD", "/none", &[]);
    assert_eq!((missing.status, missing.body.len()), (404, 0));
}

#[test]
fn what_cannot_be_answered_is_refused_in_one_line() {
    let host = Host::v2();
    let agent = quiet_agent(&host);
    for path in PATHS {
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let answer = exchange(&agent, method, path, &[]);
            assert_refused(&answer, 405, "only GET and HEAD");
            assert_eq!(answer.header("allow"), "GET, HEAD", "{method} {path}");
        }
    }
    for path in [
        "/none",
        "/metrics/",
        "/metrics/none",
        "//metrics",
        "/-/reload",
        "/stats",
        "/stats/summary/",
        "/metrics%2Fcadvisor",
        "/../etc/passwd",
    ] {
        assert_refused(&exchange(&agent, "GET", path, &[]), 404, "no such path; / lists them");
        assert_refused(&exchange(&agent, "POST", path, &[]), 404, "no such path; / lists them");
    }
    assert_refused(&agent.get("/sandboxes?runtime=gvisor"), 400, "runtime: kata or runc");
    let odd = exchange(&agent, "GET", "/metrics?sandbox=%ff%fe", &[]);
    assert_refused(&odd, 400, "sandbox: not an id");
}

/// Ids with the first 16 characters in common.
fn twins() -> [Pod; 2] {
    let id = |last: &str| format!("deadbeefdeadbeef{}", last.repeat(48));
    [Pod::new("shop", "twin-a").with_id(&id("1")), Pod::new("shop", "twin-b").with_id(&id("2"))]
}

#[test]
fn one_sandbox_is_picked_by_its_id_or_the_beginning_of_it() {
    let node = NamedNode::start();
    let web = Pod::new("shop", "web").with_id(&"c0ffee".repeat(11)[..64]);
    let app = web.container("app");
    let [one, other] = twins();
    node.run(&web, 41, &[&app]);
    node.run(&one, 42, &[]);
    node.run(&other, 43, &[]);
    let agent = start(node.flags(), &["--max-age-secs", "3600"]);
    let of = |asked: &str| agent.get(&format!("/metrics?sandbox={asked}"));

    let rows = BTreeSet::from([web.cgroup(), row_of(&web, web.id()), row_of(&web, app.id())]);
    for asked in [web.id(), &web.id()[..12], &web.id()[..63]] {
        let answer = of(asked);
        assert_eq!(answer.header("content-type"), TEXT);
        let page = Page::parse(answer.text()).expect("an exposition");
        let ids: BTreeSet<String> = page.samples().filter_map(|sample| sample.label("id")).map(str::to_owned).collect();
        assert_eq!(ids, rows, "{asked}");
        let foreign = page.samples().find(|sample| !sample.has(&[("pod", "web"), ("namespace", "shop")]));
        assert_eq!(foreign, None, "{asked}");
        assert_eq!(page.value("kata_pulse_sandbox_info", &[("sandbox_id", web.id())]), 1.0);
        let network = [("id", row_of(&web, web.id())), ("interface", "eth0".into())];
        let network = network.each_ref().map(|(name, value)| (*name, value.as_str()));
        assert_eq!(page.value("container_network_receive_bytes_total", &network), 41_000.0);
    }
    let unknown = "sandbox: unknown; /sandboxes lists them";
    assert_refused(&of(&"0".repeat(64)), 404, unknown);
    assert_refused(&of(&"0".repeat(12)), 404, unknown);
    assert_refused(&of(&format!("{}0", web.id())), 404, unknown);
    // A container is no sandbox.
    assert_refused(&of(app.id()), 404, unknown);
    for asked in ["deadbeefdeadbeef", "deadbeefdead"] {
        assert_refused(&of(asked), 409, "sandbox: more than one id begins like this");
    }
    assert_eq!(of(&one.id()[..17]).status, 200);
    assert_refused(&of("c0ffeec0ffe"), 400, "sandbox: a prefix needs 12 characters or more");
    assert_refused(&of("d"), 400, "sandbox: a prefix needs 12 characters or more");
    for odd in ["", "..%2F..%2Fetc", "c0ffeec0ffee%00", "c0ffeec0ffee%0a", "c0ffee%20c0ffee", "*", &"a".repeat(129)] {
        assert_refused(&of(odd), 400, "sandbox: not an id");
    }
    let twice = agent.get(&format!("/metrics?sandbox={}&sandbox={}", web.id(), web.id()));
    assert_refused(&twice, 400, "sandbox: given more than once");
    // Other parameters, known to some scraper or other, change nothing.
    assert_eq!(agent.get(&format!("/metrics?x=1&sandbox={}&y", web.id())).status, 200);
}

#[test]
fn sandboxes_are_listed_for_programs_shells_and_browsers() {
    let node = NamedNode::start();
    let web = Pod::new("shop", "web").created_at(1_795_230_771_000_000_000);
    let kata = Pod::new("bank", "vault").handler("kata-clh");
    node.run(&web, 41, &[&web.container("app").image("docker.io/library/nginx:1.29")]);
    node.runtime.node().add_pod(&kata);
    let agent = start(node.flags(), &[]);
    agent.page("/metrics");

    let answer = agent.get("/sandboxes");
    assert_eq!(answer.header("content-type"), "application/json");
    let list: Value = serde_json::from_str(answer.text()).expect("JSON");
    let find = |list: &Value, id: &str| -> Value {
        let found = list.as_array().expect("an array").iter().find(|entry| entry["sandbox_id"] == id).cloned();
        found.unwrap_or_else(|| panic!("no {id} in {list}"))
    };
    let entry = find(&list, web.id());
    for (key, value) in [
        ("pod_name", "web"),
        ("namespace", "shop"),
        ("uid", web.pod_uid()),
        ("runtime", "runc"),
        ("runtime_handler", ""),
        ("state", "ready"),
        ("created_at", "2026-11-21T03:12:51Z"),
    ] {
        assert_eq!(entry[key], value, "{key}");
    }
    assert_eq!(entry["sources"], serde_json::json!({ "cgroup": "up" }));
    assert_eq!(entry["last_error"], Value::Null);
    let container = &entry["containers"][0];
    assert_eq!(container["name"], "app");
    assert_eq!((&container["image"], &container["state"]), (&"docker.io/library/nginx:1.29".into(), &"running".into()));
    let entry = find(&list, kata.id());
    assert_eq!((&entry["runtime"], &entry["runtime_handler"]), (&"kata".into(), &"kata-clh".into()));

    let answer = agent.get("/sandboxes?runtime=kata");
    let list: Value = serde_json::from_str(answer.text()).expect("JSON");
    assert_eq!(list.as_array().map(Vec::len), Some(1));
    find(&list, kata.id());

    let mut ids = [web.id(), kata.id()];
    ids.sort_unstable();
    let answer = agent.get_with("/sandboxes", &[("Accept", "text/plain")]);
    assert_eq!((answer.header("content-type"), answer.text()), (PLAIN, format!("{}\n{}\n", ids[0], ids[1]).as_str()));
    let answer = agent.get_with("/sandboxes", &[("Accept", BROWSER)]);
    assert_eq!(answer.header("content-type"), HTML);
    assert!(answer.text().contains(&format!("<a href=\"/metrics?sandbox={}\">", web.id())), "{}", answer.text());
}

#[test]
fn the_landing_page_names_every_path() {
    let host = Host::v2();
    let agent = quiet_agent(&host);
    let text = agent.get("/");
    let html = agent.get_with("/", &[("Accept", BROWSER)]);
    assert_eq!((text.header("content-type"), html.header("content-type")), (PLAIN, HTML));
    for path in &PATHS[1..] {
        assert!(text.text().lines().any(|line| line.starts_with(&format!("{path}  "))), "{path}: {}", text.text());
        assert!(html.text().contains(&format!("<a href=\"{path}\">")), "{path}: {}", html.text());
    }
}

/// Also shows that the agent takes so many requests and no more, and is never too busy to say that it lives.
#[test]
fn forty_scrapes_share_one_collection_and_more_are_sent_away() {
    let host = Host::v2();
    let agent = eager_agent(&host);
    let before = collections(&agent);
    let gate = Gate::close(&host.path("proc/meminfo"));
    let (answered, answers) = mpsc::channel();
    for _ in 0..45 {
        let (mut wire, answered) = (Wire::connect(&agent), answered.clone());
        wire.ask("GET", "/metrics", &[]);
        std::thread::spawn(move || answered.send(wire.answer()));
    }
    // Nobody gets a collection while the gate is closed, so whoever is answered has been sent away, and when five
    // have, the other forty are in.
    for _ in 0..5 {
        let answer = answers.recv_timeout(PATIENCE).expect("five too many are answered");
        assert_refused(&answer, 503, "too many requests in flight");
    }
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(agent.get(path).status, 200, "{path} while the agent is busy");
    }
    assert_refused(&agent.get("/sandboxes"), 503, "too many requests in flight");
    gate.open();
    let bodies: BTreeSet<Vec<u8>> = (0..40)
        .map(|_| {
            let answer = answers.recv_timeout(PATIENCE).expect("forty are answered");
            assert_eq!(answer.status, 200, "{}", answer.text());
            answer.body
        })
        .collect();
    assert_eq!(bodies.len(), 1, "forty scrapes of one collection are the same bytes");
    let shared = Page::parse(std::str::from_utf8(bodies.first().expect("a body")).expect("text")).expect("a page");
    assert_eq!(shared.value("kata_pulse_collections_total", &[]), before + 1.0);
    assert_eq!(shared.value("kata_pulse_http_requests_in_flight", &[]), 40.0);
    let after = agent.page("/metrics");
    assert_eq!(after.value("kata_pulse_http_requests_in_flight", &[]), 1.0);
    let metrics = |code| after.value("kata_pulse_http_requests_total", &[("handler", "/metrics"), ("code", code)]);
    assert_eq!((metrics("503"), metrics("200")), (5.0, 41.0));
}

#[test]
fn whoever_asks_for_whichever_page_shares_the_collection() {
    let host = Host::v2();
    let agent = eager_agent(&host);
    let before = collections(&agent);
    let gate = Gate::close(&host.path("proc/meminfo"));
    let (answered, answers) = mpsc::channel();
    for path in ["/metrics", "/metrics/resource", "/metrics/cadvisor"].into_iter().cycle().take(41) {
        let (mut wire, answered) = (Wire::connect(&agent), answered.clone());
        wire.ask("GET", path, &[]);
        std::thread::spawn(move || answered.send(wire.answer().status));
    }
    let status = || answers.recv_timeout(PATIENCE).expect("an answer");
    // As above: when one has been sent away, the other forty are in.
    assert_eq!(status(), 503);
    gate.open();
    assert!((0..40).all(|_| status() == 200));
    assert_eq!(collections(&agent), before + 2.0, "one for the forty, and one to tell");
}

#[test]
fn a_collection_that_hangs_costs_a_scrape_no_more_than_its_deadline() {
    let host = Host::v2();
    let agent = eager_agent(&host);
    agent.page("/metrics");
    let mut gate = Gate::close(&host.path("proc/meminfo"));
    let started = Instant::now();
    let answer = agent.get_with("/metrics", &[("X-Prometheus-Scrape-Timeout-Seconds", "1")]);
    let took = started.elapsed();
    assert_refused(&answer, 503, "the collection did not finish within 500.0ms");
    assert!((Duration::from_millis(500)..Duration::from_secs(5)).contains(&took), "after {took:?}");
    gate.wait_for_reader();
    gate.open();
    agent.wait_until("scrapes are answered again", PATIENCE, || agent.get("/metrics").status == 200);
}

#[test]
fn a_collection_is_kept_for_as_long_as_told() {
    let host = Host::v2();
    host.v2_cgroup("kubepods/pod1");
    let usage =
        |agent: &Agent| agent.page("/metrics").value("container_memory_usage_bytes", &[("id", "/kubepods/pod1")]);
    let (kept, eager) = (quiet_agent(&host), eager_agent(&host));
    assert_eq!((usage(&kept), usage(&eager)), (33_554_432.0, 33_554_432.0));
    let before = collections(&eager);
    host.write("sys/fs/cgroup/kubepods/pod1/memory.current", "44\n");
    assert_eq!((usage(&kept), usage(&eager)), (33_554_432.0, 44.0));
    assert_eq!(collections(&kept), 1.0);
    assert_eq!(collections(&eager), before + 2.0);

    let brief = start(host.flags(), &["--max-age-secs", "0.2"]);
    assert_eq!(usage(&brief), 44.0);
    host.write("sys/fs/cgroup/kubepods/pod1/memory.current", "55\n");
    brief.wait_until("the kept collection has grown too old", PATIENCE, || usage(&brief) == 55.0);
}

#[test]
fn with_an_interval_scrapes_do_not_collect() {
    let host = Host::v2();
    host.v2_cgroup("kubepods/pod1");
    let agent = start(host.flags(), &["--metrics-interval-secs", "1", "--max-age-secs", "0"]);
    let usage = || agent.page("/metrics").value("container_memory_usage_bytes", &[("id", "/kubepods/pod1")]);
    assert_eq!(usage(), 33_554_432.0);
    host.write("sys/fs/cgroup/kubepods/pod1/memory.current", "44\n");
    agent.wait_until("the agent collects by itself", PATIENCE, || usage() == 44.0);

    // While a collection hangs, the last result is served at once.
    let mut gate = Gate::close(&host.path("proc/meminfo"));
    gate.wait_for_reader();
    host.write("sys/fs/cgroup/kubepods/pod1/memory.current", "55\n");
    let count = collections(&agent);
    for _ in 0..20 {
        assert_eq!(usage(), 44.0);
    }
    assert_eq!(collections(&agent), count);
    gate.open();
    agent.wait_until("the agent goes on collecting", PATIENCE, || usage() == 55.0);
}

#[test]
fn a_head_that_comes_too_slowly_is_cut_off_and_nobody_else_waits() {
    let host = Host::v2();
    let agent = quiet_agent(&host);
    let mut slow = Wire::connect(&agent);
    let started = Instant::now();
    slow.send("GET /metrics HTTP/1.1\r\nHost: node\r\n");
    // A line now and then does not win more time.
    let mut trickle = Wire::connect(&agent);
    trickle.send("GET /metrics HTTP/1.1\r\n");
    let mut lines = 0;
    while started.elapsed() < Duration::from_secs(4) {
        assert_eq!(agent.get("/metrics").status, 200);
        trickle.send("X-More: x\r\n");
        lines += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(lines > 5);
    for (mut wire, what) in [(slow, "silent"), (trickle, "trickling")] {
        let end = wire.rest();
        let took = started.elapsed();
        assert!((Duration::from_millis(4500)..Duration::from_secs(8)).contains(&took), "{what}: closed after {took:?}");
        let end = String::from_utf8_lossy(&end);
        assert!(end.starts_with("HTTP/1.1 408 "), "{what}: {end}");
    }
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let host = Host::v2();
    let agent = quiet_agent(&host);
    let mut wire = Wire::connect(&agent);
    wire.send("GET /metrics HTTP/1.1\r\nHost: node\r\n");
    let line = format!("X-Large: {}\r\n", "x".repeat(64 << 10));
    for _ in 0..16 {
        if !wire.send_if_wanted(&line) {
            break;
        }
    }
    wire.send_if_wanted("\r\n");
    let answer = wire.rest();
    let answer = String::from_utf8_lossy(&answer);
    // What the agent has not read when it closes may cost us its last words.
    assert!(
        answer.starts_with("HTTP/1.1 431 ") || answer.is_empty(),
        "a megabyte of header is answered: {answer:.200}"
    );
    assert_eq!(agent.get("/livez").status, 200);
    let resident = agent.page("/metrics").value("process_resident_memory_bytes", &[]);
    assert!(resident < 64e6, "{resident} bytes");
}

#[test]
fn requests_are_counted_by_handler_and_status_and_by_nothing_a_client_makes_up() {
    let host = Host::v2();
    let agent = eager_agent(&host);
    for path in ["/livez", "/livez", "/none", "/none2", "/metrics?sandbox=x", "/sandboxes?runtime=x"] {
        agent.get(path);
    }
    exchange(&agent, "POST", "/metrics", &[]);
    let page = agent.page("/metrics");
    let counted =
        |handler, code| page.lookup("kata_pulse_http_requests_total", &[("handler", handler), ("code", code)]);
    assert_eq!(counted("/livez", "200"), Some(2.0));
    assert_eq!(counted("/metrics", "400"), Some(1.0));
    assert_eq!(counted("/metrics", "405"), Some(1.0));
    assert_eq!(counted("/sandboxes", "400"), Some(1.0));
    assert_eq!(counted("other", "404"), Some(2.0));
    let handlers: BTreeSet<&str> = page
        .matching("kata_pulse_http_requests_total", &[])
        .iter()
        .filter_map(|sample| sample.label("handler"))
        .collect();
    assert!(handlers.iter().all(|handler| PATHS.contains(handler) || *handler == "other"), "{handlers:?}");
}

#[test]
fn every_address_given_is_listened_on() {
    let host = Host::v2();
    let agent = start(host.flags(), &["-l", "127.0.0.2:0", "--listen-address", "127.0.0.3:0,127.0.0.4:0"]);
    agent.wait_until("all addresses are announced", PATIENCE, || addresses(&agent).len() == 4);
    let found: BTreeSet<String> = addresses(&agent).iter().map(|address| address.ip().to_string()).collect();
    assert_eq!(found, ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"].map(str::to_owned).into());
    for address in addresses(&agent) {
        std::net::TcpStream::connect(address).expect("someone listens");
    }
}
