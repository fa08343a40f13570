//! When numbers are of, and the rates that follow from it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kata_pulse_simulator::kata::{Endpoint, Fault, Hypervisor, KataNode, Runtime};

use crate::support::gate::Gate;
use crate::support::metrics_server::{cpu_rate, decode};
use crate::support::wire::Wire;
use crate::{ASKED, PATH, batch, start, text, two_containers};

fn now_millis() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

/// The number itself and not the time of asking: a collection that is shared or kept would show in every rate.
#[test]
fn rates_are_those_between_two_readings() {
    let (node, app, _) = two_containers();
    let stat = |micros: u64| format!("usage_usec {micros}\nuser_usec 0\nsystem_usec 0\n");
    let kept = start(node.flags(), &["--max-age-secs", "3600"]);
    let before = text(&kept);
    node.host.write(&format!("{app}/cpu.stat"), &stat(9_000_000));
    assert_eq!(text(&kept), before, "a kept collection is the same point and no other");
    let point = |page: &str| decode(page, ASKED).pod("shop", "web")["app"];
    assert_eq!(cpu_rate(&point(&before), &point(&text(&kept))), None);

    let eager = start(node.flags(), &["--max-age-secs", "0"]);
    let first = text(&eager);
    node.host.write(&format!("{app}/cpu.stat"), &stat(9_500_000));
    std::thread::sleep(Duration::from_millis(100));
    let (one, two) = (point(&first), point(&text(&eager)));
    let seconds = (two.at_millis - one.at_millis) as f64 / 1e3;
    assert!((0.1..20.0).contains(&seconds), "{seconds} s");
    assert_eq!(cpu_rate(&one, &two), Some(500_000_000.0 / seconds));
    assert!(now_millis() - two.at_millis < 20_000, "Unix time in milliseconds");
}

/// How long the rest of a collection takes must not show in a rate.
#[test]
fn a_number_is_of_when_its_reading_began() {
    let (node, ..) = two_containers();
    let agent = start(node.flags(), &["--max-age-secs", "0"]);
    let mut gate = Gate::close(&node.host.path("proc/meminfo"));
    let mut wire = Wire::connect(&agent);
    wire.ask("GET", PATH, &[]);
    gate.wait_for_reader();
    let reading = now_millis();
    std::thread::sleep(Duration::from_millis(50));
    gate.open();
    let answer = wire.answer();
    let batch = decode(answer.text(), ASKED);
    let times = [batch.node.unwrap().at_millis, batch.pod("shop", "web")["app"].at_millis];
    assert!(times.iter().all(|at| *at <= reading && *at > reading - 20_000), "{times:?}, {reading}");
}

#[test]
fn a_guest_that_answers_late_is_told_of_then() {
    let node = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::CloudHypervisor).containers(1).start().unwrap();
    node.advance(3);
    node.sandbox(0).fail(Endpoint::Agent, Fault::Delay(Duration::from_millis(300)));
    let agent = start(node.flags(), &["--max-age-secs", "0"]);
    let batch = batch(&agent);
    let containers = batch.pods.values().flatten().map(|(_, point)| point.at_millis);
    let late: Vec<i64> = containers.map(|at| at - batch.node.unwrap().at_millis).collect();
    assert!(late.len() == 1 && (300..20_000).contains(&late[0]), "{late:?} ms");
}
