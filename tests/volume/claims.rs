//! Whose volumes are, by the API server's word.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use kata_pulse::expose::catalog::volume_families;
use kata_pulse::expose::family;
use serde_json::json;

use crate::PATIENCE;
use crate::kubelet::{Df, Kubelet};
use crate::support::agent::Agent;
use crate::support::api_server::{AGENT_TOKEN, ApiServer, Mood};
use crate::support::command::kata_pulse;
use crate::support::exposition::{Kind, Page};

const FAMILIES: [&str; 6] = ["available_bytes", "capacity_bytes", "inodes", "inodes_free", "inodes_used", "used_bytes"];

fn agent(kubelet: &Kubelet, api: &ApiServer) -> Agent {
    agent_with(kubelet, api, &[])
}

fn agent_with(kubelet: &Kubelet, api: &ApiServer, more: &[&str]) -> Agent {
    let environment = api.environment();
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let account = api.account().display().to_string();
    kubelet.agent_in(&environment, &[&["--volume-claims", "--service-account-dir", &account], more].concat())
}

fn unnamed(page: &Page) -> f64 {
    page.value("kata_pulse_volumes_unnamed", &[])
}

fn wait_until_named(agent: &Agent) -> Page {
    agent.wait_until("every claim is known", PATIENCE, || unnamed(&agent.page("/metrics")) == 0.0);
    agent.page("/metrics")
}

/// A volume of the driver that `Kubelet::csi` tells of.
fn binds(api: &ApiServer, volume: &str, claim: &str) {
    api.binds(volume, ("csi.test", &format!("handle-of-{volume}")), ("shop", claim));
}

fn mounted(kubelet: &mut Kubelet, pod: &str, volume: &str) -> PathBuf {
    let pod = kubelet.run(pod);
    let point = kubelet.csi(&pod, volume, "Persistent");
    kubelet.tmpfs(&point, 1024);
    point
}

#[test]
fn every_family_of_volumes_comes_with_its_type_and_labels() {
    let _alone = crate::alone();
    let api = ApiServer::start();
    let mut kubelet = Kubelet::start();
    mounted(&mut kubelet, "db", "pvc-1");
    binds(&api, "pvc-1", "data-db-0");
    let agent = agent_with(&kubelet, &api, &["--enable-collectors", "volume,emptydir", "--metrics-profile", "all"]);
    agent.wait_until("a walk has ended", PATIENCE, || {
        agent.page("/metrics").family("kata_pulse_emptydir_walk_duration_seconds").is_some()
    });
    let page = wait_until_named(&agent);
    for meta in volume_families() {
        let family = page.family(meta.name).unwrap_or_else(|| panic!("{} is not served", meta.name));
        assert_eq!((meta.kind, family.kind), (family::Kind::Gauge, Some(Kind::Gauge)), "{}", meta.name);
        for sample in &family.samples {
            let labels: Vec<&str> = sample.labels.keys().map(String::as_str).collect();
            assert_eq!(labels, meta.labels, "{}", meta.name);
        }
    }
}

#[test]
fn a_volume_that_the_api_server_does_not_know_holds_up_no_other() {
    let _alone = crate::alone();
    let api = ApiServer::start();
    let mut kubelet = Kubelet::start();
    mounted(&mut kubelet, "cache", "pvc-0");
    mounted(&mut kubelet, "db", "pvc-1");
    binds(&api, "pvc-1", "data-db-0");
    let agent = agent(&kubelet, &api);
    let page = wait_until_named(&agent);
    assert_eq!(page.matching("kubelet_volume_stats_used_bytes", &[]).len(), 1);
    assert!(agent.log().iter().all(|line| !line.contains("claims of volumes are not known")), "nothing was in vain");
}

#[test]
fn claims_have_the_kubelets_families() {
    let _alone = crate::alone();
    let api = ApiServer::start();
    let mut kubelet = Kubelet::start();
    let point = mounted(&mut kubelet, "db", "pvc-1");
    binds(&api, "pvc-1", "data-db-0");
    let agent = agent(&kubelet, &api);
    let page = wait_until_named(&agent);
    let labels = [("namespace", "shop"), ("persistentvolumeclaim", "data-db-0")];
    let [available, capacity, inodes, inodes_free, inodes_used, used] =
        FAMILIES.map(|family| page.value(&format!("kubelet_volume_stats_{family}"), &labels));
    assert_eq!(Df { capacity, used, available, inodes, inodes_used, inodes_free }, Df::of(&point));
    let family = page.family("kubelet_volume_stats_used_bytes").expect("it is served");
    let names: Vec<&str> = family.samples[0].labels.keys().map(String::as_str).collect();
    assert_eq!(names, ["namespace", "persistentvolumeclaim"]);
    for _ in 0..5 {
        agent.page("/metrics");
    }
    let asked = api.asked();
    assert_eq!(asked.len(), 1, "it is asked once: {asked:?}");
    assert_eq!(asked[0].path, "/api/v1/persistentvolumes/pvc-1");
    assert_eq!(asked[0].authorization, format!("Bearer {AGENT_TOKEN}"));
}

#[test]
fn a_shared_claim_is_told_once_and_to_each_sandbox() {
    let _alone = crate::alone();
    let api = ApiServer::start();
    let mut kubelet = Kubelet::start();
    let point = mounted(&mut kubelet, "one", "pvc-1");
    let other = kubelet.run("other");
    let shared = kubelet.csi(&other, "pvc-1", "Persistent");
    kubelet.bind(&point, &shared);
    binds(&api, "pvc-1", "shared");
    let agent = agent(&kubelet, &api);
    let page = wait_until_named(&agent);
    assert_eq!(page.matching("kubelet_volume_stats_capacity_bytes", &[]).len(), 1);
    assert_eq!(page.matching("kata_pulse_volume_capacity_bytes", &[]).len(), 2);
    let page = agent.page(&format!("/metrics?sandbox={}", other.id()));
    assert_eq!(page.matching("kubelet_volume_stats_capacity_bytes", &[]).len(), 1);
    assert_eq!(page.matching("kata_pulse_volume_capacity_bytes", &[]).len(), 1);
    assert!(page.family("kata_pulse_volumes").is_none());
}

#[test]
fn no_claim_is_made_up() {
    let _alone = crate::alone();
    let api = ApiServer::start();
    let mut kubelet = Kubelet::start();
    // Bound in another namespace, by another driver, to nothing, and not at all.
    for volume in ["pvc-elsewhere", "pvc-other-driver", "pvc-unknown"] {
        mounted(&mut kubelet, &format!("of-{volume}"), volume);
    }
    api.binds("pvc-elsewhere", ("csi.test", "handle-of-pvc-elsewhere"), ("bank", "vault"));
    api.binds("pvc-other-driver", ("csi.other", "handle-of-pvc-other-driver"), ("shop", "data"));
    // A volume that the pod describes itself, under the name of a claimed one.
    let inline = kubelet.run("inline");
    let point = kubelet.csi(&inline, "pvc-1", "Ephemeral");
    kubelet.tmpfs(&point, 1024);
    binds(&api, "pvc-1", "data");
    let agent = agent(&kubelet, &api);
    let page = wait_until_named(&agent);
    assert!(page.family("kubelet_volume_stats_capacity_bytes").is_none());
    assert_eq!(page.matching("kata_pulse_volume_capacity_bytes", &[]).len(), 4);
    assert!(api.asked().iter().all(|question| question.path != "/api/v1/persistentvolumes/pvc-1"));
}

#[test]
fn an_answer_that_makes_no_sense_costs_only_its_own_volume() {
    let _alone = crate::alone();
    let api = ApiServer::start();
    let mut kubelet = Kubelet::start();
    let huge = "x".repeat(300 << 10);
    for (volume, object) in [
        ("pvc-a", json!({ "kind": "Status" })),
        ("pvc-b", json!({ "kind": "PersistentVolume", "metadata": { "name": "pvc-b" }, "spec": { "note": huge } })),
    ] {
        mounted(&mut kubelet, &format!("of-{volume}"), volume);
        api.has(volume, object);
    }
    mounted(&mut kubelet, "db", "pvc-c");
    binds(&api, "pvc-c", "data");
    let agent = agent(&kubelet, &api);
    agent.wait_until("the other claim is known", PATIENCE, || unnamed(&agent.page("/metrics")) == 2.0);
    let page = agent.page("/metrics");
    let labels = [("namespace", "shop"), ("persistentvolumeclaim", "data")];
    assert_eq!(page.lookup("kubelet_volume_stats_capacity_bytes", &labels), Some(1_048_576.0));
    assert_eq!(page.matching("kubelet_volume_stats_capacity_bytes", &[]).len(), 1);
}

#[test]
fn an_api_server_that_does_not_tell_is_not_waited_for() {
    let _alone = crate::alone();
    let mut kubelet = Kubelet::start();
    mounted(&mut kubelet, "db", "pvc-1");
    for mood in [
        Mood::Hung,
        Mood::Gone,
        Mood::Flooding,
        Mood::HonestBut(403),
        Mood::Saying(200, "{}".to_owned()),
        Mood::Saying(200, r#"{"kind":"PersistentVolume","metadata":{"name":"pvc-2"},"spec":{}}"#.to_owned()),
    ] {
        let api = ApiServer::start();
        binds(&api, "pvc-1", "data");
        api.behaves(mood.clone());
        let agent = agent(&kubelet, &api);
        agent.page("/metrics");
        let said = || agent.log().iter().filter(|line| line.contains("claims of volumes are not known")).count();
        agent.wait_until("the failure is logged", PATIENCE, || said() == 1);
        let began = Instant::now();
        let page = agent.page("/metrics");
        assert!(began.elapsed() < Duration::from_secs(2), "{mood:?}");
        assert_eq!(
            (unnamed(&page), page.matching("kata_pulse_volume_capacity_bytes", &[]).len()),
            (1.0, 1),
            "{mood:?}"
        );
        assert!(page.family("kubelet_volume_stats_capacity_bytes").is_none(), "{mood:?}");
        assert_eq!(said(), 1, "{mood:?}");
    }
}

#[test]
fn an_api_server_that_is_back_is_asked_again() {
    let _alone = crate::alone();
    let mut kubelet = Kubelet::start();
    mounted(&mut kubelet, "db", "pvc-1");
    let api = ApiServer::start();
    binds(&api, "pvc-1", "data");
    api.behaves(Mood::Gone);
    let agent = agent(&kubelet, &api);
    agent.page("/metrics");
    let says = |what: &str| agent.log().iter().filter(|line| line.contains(what)).count();
    agent.wait_until("the failure is logged", PATIENCE, || says("claims of volumes are not known") == 1);
    api.behaves(Mood::Honest);
    let page = wait_until_named(&agent);
    assert_eq!(page.matching("kubelet_volume_stats_capacity_bytes", &[]).len(), 1);
    agent.wait_until("so is what it knows", PATIENCE, || says("claims of volumes are known again") == 1);
}

#[test]
fn outside_a_cluster_nobody_can_be_asked() {
    let said = kata_pulse(["check-config", "--volume-claims"]).expect_code(2).stderr;
    let expected = "kata-pulse: volume-claims: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set";
    assert_eq!(said.trim_end(), expected);
}
