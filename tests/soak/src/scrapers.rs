//! Those who read: four kinds of scrapers that check every answer, and two clients that do not behave.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use flate2::read::GzDecoder;

use crate::check::{self, Counters};
use crate::exposition::Page;
use crate::stage::Stage;

/// Prometheus' default, which the agent is told; longer on a slow machine.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a client that does not read asks for on one connection: more than any socket buffers.
const PIPELINED: usize = 64;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// Everything, as text.
    Text,
    /// The same, compressed.
    Gzip,
    /// The same, as OpenMetrics and compressed.
    OpenMetrics,
    /// One sandbox after the other.
    Sandbox,
    /// What the shims say.
    Passthrough,
    /// The list of sandboxes, as JSON.
    Listing,
}

/// All of them, and their intervals: no two have a common rhythm.
pub const READERS: [(Reads, Duration); 6] = [
    (Reads::Text, Duration::from_millis(2000)),
    (Reads::Gzip, Duration::from_millis(3100)),
    (Reads::OpenMetrics, Duration::from_millis(4700)),
    (Reads::Sandbox, Duration::from_millis(1100)),
    (Reads::Passthrough, Duration::from_millis(7300)),
    (Reads::Listing, Duration::from_millis(5300)),
];

/// One scraper.
#[derive(Debug)]
pub struct Scraper<'a> {
    stage: &'a Stage,
    reads: Reads,
    http: ureq::Agent,
    counters: Counters,
    turn: usize,
    timeout: Duration,
    pub times: Vec<Duration>,
}

impl<'a> Scraper<'a> {
    pub fn new(stage: &'a Stage, reads: Reads) -> Self {
        let timeout = TIMEOUT.mul_f64(stage.patience.0);
        let http = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(timeout)).build();
        let (http, counters) = (http.new_agent(), Counters::default());
        Self { stage, reads, http, counters, turn: 0, timeout, times: Vec::new() }
    }

    /// Reads until the end. Gives how long answers took.
    pub fn run(mut self, every: Duration) -> (Reads, Vec<Duration>) {
        while self.stage.pause(every) {
            let read = self.read().with_context(|| format!("{:?}", self.reads));
            self.stage.expect("a scrape failed", read);
        }
        (self.reads, self.times)
    }

    fn read(&mut self) -> anyhow::Result<()> {
        match self.reads {
            Reads::Text => self.whole("/metrics", "text/plain", "identity"),
            Reads::Gzip => self.whole("/metrics", "text/plain;version=0.0.4", "gzip"),
            Reads::OpenMetrics => self.whole("/metrics", "application/openmetrics-text;version=1.0.0", "gzip"),
            Reads::Passthrough => self.page("/metrics/kata", "text/plain", "identity").map(drop),
            Reads::Sandbox => self.one_sandbox(),
            Reads::Listing => self.listing(),
        }
    }

    fn whole(&mut self, path: &str, accept: &str, encoding: &str) -> anyhow::Result<()> {
        let begun = Instant::now();
        let page = self.page(path, accept, encoding)?;
        let ledger = self.stage.ledger();
        let wrong = check::wrong(&page, &ledger, begun);
        let fallen = self.counters.fallen(&page, &ledger);
        drop(ledger);
        wrong.iter().for_each(|what| self.stage.breach("the wrong pods", format!("{:?}: {what}", self.reads)));
        fallen.iter().for_each(|what| self.stage.breach("a counter fell", format!("{:?}: {what}", self.reads)));
        Ok(())
    }

    /// One of those that are well, which must be told of, and of nobody else.
    fn one_sandbox(&mut self) -> anyhow::Result<()> {
        let due = self.stage.ledger().due(Instant::now());
        self.turn += 1;
        let Some(due) = due.get(self.turn % due.len().max(1)) else { return Ok(()) };
        let (begun, path) = (Instant::now(), format!("/metrics?sandbox={}", due.sandbox));
        let (status, body) = self.ask(&path, "text/plain", "identity")?;
        let still_due = self.stage.ledger().due(begun).iter().any(|other| other.sandbox == due.sandbox);
        if status == 404 && !still_due {
            return Ok(());
        }
        ensure!(status == 200, "{path}: {status} {}", String::from_utf8_lossy(&body));
        let page = self.parse(&path, &body)?;
        let mut pods: Vec<&str> = page.samples().filter_map(|sample| sample.label("pod")).collect();
        pods.sort_unstable();
        pods.dedup();
        ensure!(pods == [due.pod.as_str()], "{path} tells of {pods:?}, not of {}", due.pod);
        Ok(())
    }

    fn listing(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let (status, body) = self.ask("/sandboxes", "application/json", "identity")?;
        ensure!(status == 200, "/sandboxes: {status} {}", String::from_utf8_lossy(&body));
        let list: Vec<serde_json::Value> = serde_json::from_slice(&body).context("/sandboxes is no JSON")?;
        let due = self.stage.ledger().due(begun);
        let listed = |id: &str| list.iter().any(|entry| entry["sandbox_id"] == id);
        let lacking: Vec<&str> = due.iter().filter(|due| !listed(&due.sandbox)).map(|due| due.pod.as_str()).collect();
        ensure!(lacking.is_empty(), "/sandboxes lacks {lacking:?}");
        Ok(())
    }

    fn page(&mut self, path: &str, accept: &str, encoding: &str) -> anyhow::Result<Page> {
        let (status, body) = self.ask(path, accept, encoding)?;
        ensure!(status == 200, "{path}: {status} {}", String::from_utf8_lossy(&body));
        self.parse(path, &body)
    }

    fn parse(&self, path: &str, body: &[u8]) -> anyhow::Result<Page> {
        let text = std::str::from_utf8(body).with_context(|| format!("{path} is no UTF-8"))?;
        let rewritten;
        let text = if self.reads == Reads::OpenMetrics {
            rewritten = check::as_text(text).map_err(anyhow::Error::msg)?;
            &rewritten
        } else {
            text
        };
        Page::parse(text).map_err(|fault| anyhow::anyhow!("{path}: {fault}"))
    }

    /// Status and body, unpacked.
    fn ask(&mut self, path: &str, accept: &str, encoding: &str) -> anyhow::Result<(u16, Vec<u8>)> {
        let begun = Instant::now();
        let request = self.http.get(format!("http://{}{path}", self.stage.agent.address));
        let request = request.header("accept", accept).header("accept-encoding", encoding);
        let timeout = self.timeout.as_secs_f64().to_string();
        let answer = request.header("x-prometheus-scrape-timeout-seconds", timeout).call();
        let mut answer = answer.with_context(|| format!("GET {path}"))?;
        let packed = answer.headers().get("content-encoding").is_some_and(|value| value == "gzip");
        ensure!(answer.status() != 200 || packed == (encoding == "gzip"), "{path}: packed is {packed}");
        let body = answer.body_mut().with_config().limit(256 << 20).read_to_vec();
        let mut body = body.with_context(|| format!("body of {path}"))?;
        self.times.push(begun.elapsed());
        self.stage.scrapes.fetch_add(1, Ordering::Relaxed);
        self.stage.bytes.fetch_add(u64::try_from(body.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if packed {
            let mut unpacked = Vec::new();
            GzDecoder::new(&body[..]).read_to_end(&mut unpacked).with_context(|| format!("unpack {path}"))?;
            body = unpacked;
        }
        Ok((answer.status().as_u16(), body))
    }
}

/// Asks, reads a little and leaves; or leaves within its own question.
pub fn leave_midway(stage: &Stage, every: Duration, mut dice: fastrand::Rng) {
    while stage.pause(every) {
        let outcome = (|| -> anyhow::Result<()> {
            let mut stream = TcpStream::connect(&stage.agent.address)?;
            stream.set_read_timeout(Some(TIMEOUT.mul_f64(stage.patience.0)))?;
            let request = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", stage.agent.address);
            let asked = if dice.u8(..4) == 0 { dice.usize(1..request.len() - 1) } else { request.len() };
            stream.write_all(&request.as_bytes()[..asked])?;
            if asked == request.len() {
                let mut part = vec![0; dice.usize(1..20_000)];
                stream.read_exact(&mut part)?;
            }
            Ok(())
        })();
        stage.did("clients that left midway");
        stage.expect("a client that leaves midway got nothing", outcome);
    }
}

/// Asks for more than sockets buffer, and reads none of it. The agent may close the connection or wait.
pub fn never_read(stage: &Stage, hold: Duration) {
    loop {
        let connection = TcpStream::connect(&stage.agent.address).context("connect").and_then(|mut stream| {
            stream.set_write_timeout(Some(Duration::from_secs(1)))?;
            let request = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", stage.agent.address);
            // Where it does not take all of the questions, the rest is not needed.
            stream.write_all(request.repeat(PIPELINED).as_bytes()).ok();
            Ok(stream)
        });
        let connection = stage.expect("a client that does not read was refused", connection);
        stage.did("clients that never read");
        if !stage.pause(hold) {
            return;
        }
        drop(connection);
    }
}

/// Asks once, when nothing changes any more, and gives the page.
pub fn last_page(stage: &Stage) -> anyhow::Result<Page> {
    let mut scraper = Scraper::new(stage, Reads::Text);
    let page = scraper.page("/metrics", "text/plain", "identity")?;
    if page.families.is_empty() {
        bail!("the last page is empty");
    }
    Ok(page)
}
