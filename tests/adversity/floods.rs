//! Clients that take up connections, send slowly, send too much or never read. Beside them scrapes and health checks are
//! answered, and when they are gone nothing of them is left.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::agent::Agent;
use crate::support::gate::Gate;
use crate::support::wire::{Wire, exchange, parse};
use crate::{PATIENCE, assert_whole, connections, eager, node_with};

/// More than the agent takes in at once, whatever the descriptors it may have.
const CROWD: usize = 600;

/// How many connections the agent holds at most.
const ROOM: u16 = 256;

/// Descriptors for the agent's own purposes, on a node with [`PODS`] pods.
const OWN_DESCRIPTORS: usize = 200;

const PODS: usize = 3;

/// Not the scraper's, which is 127.0.0.1.
const CROWDS_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A scrape or health check beside an attack, on a busy machine; Prometheus gives up after ten seconds.
const IN_TIME: Duration = Duration::from_secs(8);

/// What each of a crowd does with its connection.
struct Attack {
    name: &'static str,
    /// Sent at once.
    first: String,
    /// Sent each time round, until the agent does not want it any more.
    then: &'static str,
}

fn attacks() -> Vec<Attack> {
    let ask = "GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n";
    let attack = |name, first: &str, then| Attack { name, first: first.to_owned(), then };
    vec![
        attack("says nothing", "", ""),
        attack("asks once and keeps the connection", "GET /livez HTTP/1.1\r\nHost: node\r\n\r\n", ""),
        attack("sends half a head", "GET /metrics HTTP/1.1\r\nHost: no", ""),
        attack("sends a head line by line", "GET /metrics HTTP/1.1\r\n", "X-More: x\r\n"),
        attack("sends a body byte by byte", "GET /livez HTTP/1.1\r\nHost: n\r\nContent-Length: 1000000\r\n\r\n", "x"),
        attack("sends chunks", "GET /livez HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"),
        attack("never reads", &ask.repeat(100), ""),
        attack("never reads and asks on", &ask.repeat(40), ask),
        attack("sends garbage", "\u{16}\u{3}\u{1}\u{2}\u{0}", "\u{0}"),
    ]
}

/// This process needs more descriptors than the usual soft limit.
fn raise_own_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).expect("raise the limit");
}

/// Health and a scrape, each over a connection of its own.
#[track_caller]
fn assert_served(agent: &Agent, during: &str) {
    for path in ["/livez", "/readyz", "/metrics"] {
        let started = Instant::now();
        let answer = exchange(agent, "GET", path, &[]);
        assert_eq!(answer.status, 200, "{during}: {path}: {}", answer.text());
        assert!(started.elapsed() < IN_TIME, "{during}: {path} took {:?}", started.elapsed());
    }
    let started = Instant::now();
    assert_whole(&agent.page("/metrics"), PODS, during);
    assert!(started.elapsed() < IN_TIME, "{during}: a scrape took {:?}", started.elapsed());
}

#[test]
fn no_crowd_keeps_scrapes_out_or_leaves_anything_behind() {
    raise_own_limit();
    let host = node_with(PODS);
    let agent = Agent::start(eager(host.flags(), &[]));
    assert_served(&agent, "before");
    let memory = agent.resident_bytes();
    for Attack { name, first, then } in attacks() {
        let mut crowd: Vec<Wire> = (0..CROWD).map(|_| Wire::connect_from(&agent, CROWDS_ADDRESS)).collect();
        crowd.iter_mut().for_each(|wire| wire.push(&first));
        for _ in 0..3 {
            crowd.iter_mut().for_each(|wire| wire.push(then));
            assert_served(&agent, name);
        }
        assert!(connections(&agent) <= f64::from(ROOM), "{name}: {} connections", connections(&agent));
        let open = agent.open_files().len();
        assert!(open < usize::from(ROOM) + OWN_DESCRIPTORS, "{name}: {open} descriptors");
        // What a connection may keep for its client is bounded, and so is the number of connections.
        let grown = agent.resident_bytes().saturating_sub(memory);
        assert!(grown < 64 << 20, "{name}: {grown} bytes");
        drop(crowd);
        agent.wait_until(&format!("they are gone: {name}"), PATIENCE, || connections(&agent) <= 2.0);
    }
    let closed = agent.page("/metrics").value("kata_pulse_http_connections_closed_total", &[("reason", "full")]);
    assert!(closed >= CROWD as f64 - f64::from(ROOM), "{closed} made way");
    let said = agent.log().iter().filter(|line| line.contains("no room for more connections")).count();
    let lines = agent.log().len();
    assert!((1..=5).contains(&said) && lines < 60, "said {said} times, in {lines} lines");
    agent.stop(0);
}

#[test]
fn a_client_that_does_not_read_is_let_go_of() {
    let host = node_with(PODS);
    let agent = Agent::start(eager(host.flags(), &[]));
    let mut deaf: Vec<Wire> = (0..5).map(|_| Wire::connect(&agent)).collect();
    // Together more than the kernel buffers for a connection.
    let asks = "GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n".repeat(2000);
    deaf.iter_mut().for_each(|wire| wire.push(&asks));
    let unread = || {
        let page = agent.page("/metrics");
        page.lookup("kata_pulse_http_connections_closed_total", &[("reason", "unread")]).unwrap_or_default()
    };
    agent.wait_until("all five are closed", Duration::from_secs(60), || unread() >= 5.0);
    assert!(connections(&agent) <= 2.0, "although their clients are still there");
    assert!(deaf.iter_mut().all(Wire::is_closed));
    assert_served(&agent, "after");
}

#[test]
fn a_body_that_never_ends_does_not_keep_its_connection() {
    let host = node_with(PODS);
    let agent = Agent::start(eager(host.flags(), &[]));
    for head in ["Content-Length: 1000000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut wire = Wire::connect(&agent);
        wire.send(format!("GET /livez HTTP/1.1\r\nHost: node\r\n{head}\r\n"));
        agent.wait_until(&format!("it is closed: {head:?}"), PATIENCE, || {
            wire.send_if_wanted("1\r\nx\r\n");
            wire.is_closed()
        });
    }
}

#[test]
fn a_scrape_under_way_is_not_pushed_out() {
    raise_own_limit();
    let host = node_with(PODS);
    let agent = Agent::start(eager(host.flags(), &[]));
    let mut gate = Gate::close(&host.path("proc/meminfo"));
    let mut scrape = Wire::connect(&agent);
    scrape.ask("GET", "/metrics", &[]);
    gate.wait_for_reader();
    let crowd: Vec<Wire> = (0..CROWD).map(|_| Wire::connect_from(&agent, CROWDS_ADDRESS)).collect();
    let mut last = Wire::connect(&agent);
    last.ask("GET", "/livez", &[]);
    assert_eq!(last.answer().status, 200, "the crowd is in");
    gate.open();
    let answer = scrape.answer();
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("\nkata_pulse_collections_total"), "to its end");
    drop(crowd);
}

#[test]
fn connections_that_come_and_go_as_fast_as_they_can_do_no_harm() {
    let host = node_with(PODS);
    let agent = Agent::start(eager(host.flags(), &[]));
    assert_served(&agent, "before");
    let before = agent.open_files().len();
    std::thread::scope(|scope| {
        let hasty = || {
            for round in 0..1500 {
                let mut wire = Wire::connect_from(&agent, CROWDS_ADDRESS);
                if round % 2 == 0 {
                    wire.push("GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n");
                }
            }
        };
        let all = [scope.spawn(hasty), scope.spawn(hasty)];
        while all.iter().any(|one| !one.is_finished()) {
            assert_served(&agent, "while they come and go");
        }
    });
    agent.wait_until("all are gone", PATIENCE, || connections(&agent) <= 2.0 && agent.open_files().len() <= before + 2);
}

#[test]
fn a_client_that_says_it_has_nothing_more_to_say_is_answered() {
    let host = node_with(PODS);
    let agent = Agent::start(eager(host.flags(), &[]));
    let mut wire = Wire::connect(&agent);
    wire.send("GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n");
    wire.end();
    let answer = parse(&wire.rest());
    assert_eq!((answer.status, answer.header("content-length")), (200, answer.body.len().to_string().as_str()));
    let mut silent = Wire::connect(&agent);
    silent.end();
    assert_eq!(silent.rest(), b"", "who says nothing gets nothing, and is let go of");
}

#[test]
fn requests_sent_in_one_go_are_answered_in_their_order() {
    let host = node_with(PODS);
    let agent = Agent::start(eager(host.flags(), &[]));
    let mut wire = Wire::connect(&agent);
    let mut asks: String = (0..60)
        .map(|number| format!("GET /{} HTTP/1.1\r\nHost: n\r\n\r\n", if number % 3 == 0 { "none" } else { "livez" }))
        .collect();
    asks.push_str("GET / HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n");
    wire.send(&asks);
    let answers = String::from_utf8(wire.rest()).expect("text");
    let statuses: Vec<&str> = answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..at + 12]).collect();
    let expected: Vec<&str> =
        (0..60).map(|number| if number % 3 == 0 { "404" } else { "200" }).chain(["200"]).collect();
    assert_eq!(statuses, expected);
}
