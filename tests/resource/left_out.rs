//! What is on the page and what is left out, so that metrics-server neither drops a pod nor adds it up wrongly.

use kata_pulse_simulator::cri::{Exit, Pod};

use crate::support::exposition::Page;
use crate::support::metrics_server::decode;
use crate::support::node::{NamedNode, row_of};
use crate::{ASKED, PATH, batch, start, text, two_containers};

#[test]
fn a_container_that_has_done_nothing_yet_does_not_take_its_pod_away() {
    let (node, _, sidecar) = two_containers();
    let agent = start(node.flags(), &["--max-age-secs", "0"]);
    assert_eq!(batch(&agent).pod("shop", "web").len(), 2);
    let stat = "user_usec 0\nsystem_usec 0\n";
    for (file, nothing, something) in [
        ("cpu.stat", format!("usage_usec 0\n{stat}"), format!("usage_usec 7\n{stat}")),
        ("memory.current", "4194304\n".to_owned(), "4198400\n".to_owned()),
    ] {
        // The working set is what is left without 4194304 bytes of inactive file cache.
        node.host.write(&format!("{sidecar}/{file}"), &nothing);
        let without = batch(&agent);
        assert_eq!(without.dropped, [], "{file}");
        assert_eq!(without.pod("shop", "web").keys().collect::<Vec<_>>(), ["app"], "{file}");
        // The facts are where nobody takes 0 for something else.
        let metrics = agent.page("/metrics");
        let zeros =
            metrics.samples().filter(|sample| sample.value == 0.0 && sample.label("container") == Some("sidecar"));
        assert!(zeros.count() > 0);
        node.host.write(&format!("{sidecar}/{file}"), &something);
        assert_eq!(batch(&agent).pod("shop", "web").len(), 2, "{file}");
    }
}

/// The sum of a pod with a container whose use nobody knows would be too low, and an autoscaler would believe it.
#[test]
fn a_pod_is_not_added_up_while_a_container_of_it_is_not_known() {
    let (node, _, sidecar) = two_containers();
    let agent = start(node.flags(), &["--max-age-secs", "0"]);
    std::fs::remove_file(node.host.path(&format!("{sidecar}/memory.current"))).unwrap();
    let page = text(&agent);
    let batch = decode(&page, ASKED);
    assert_eq!(batch.dropped, [("shop".to_owned(), "web".to_owned())]);
    let page = Page::parse(&page).unwrap();
    let of = |family, container| page.lookup(family, &[("container", container)]);
    assert_eq!(of("container_cpu_usage_seconds_total", "sidecar"), Some(3.5));
    assert_eq!(of("container_memory_working_set_bytes", "sidecar"), None);
    assert_eq!(of("container_memory_working_set_bytes", "app"), Some(29_360_128.0));
}

#[test]
fn a_container_that_has_ended_is_not_there_and_a_restarted_one_is_there_once() {
    let node = NamedNode::start();
    let web = Pod::new("shop", "web");
    let first = web.container("app").created_at(1_700_000_000_000_000_000);
    let again = web.container("app").attempt(1).created_at(1_700_000_100_500_000_000);
    let init = web.container("init");
    node.run(&web, 41, &[&first, &again, &init]);
    node.runtime.node().exit_container(init.id(), &Exit::completed());
    let agent = start(node.flags(), &[]);
    let page = agent.page(PATH);
    let starts = page.matching("container_start_time_seconds", &[]);
    let [only] = starts.as_slice() else { panic!("{starts:?}") };
    assert_eq!((only.label("container"), only.timestamp), (Some("app"), None));
    assert!(only.value > 1_700_000_100.0, "{}", only.value);
    assert!((only.value.fract() * 10.0).fract() < 1e-5, "the fraction of a second is told: {}", only.value);
    assert_eq!(batch(&agent).pod("shop", "web").len(), 1);
}

/// Its old sandbox and container may be there for a while, with cgroups of their own.
#[test]
fn a_pod_that_was_made_anew_is_there_once() {
    let node = NamedNode::start();
    let made = |uid: &str, id: &str, nanos| Pod::new("shop", "web").uid(uid).with_id(&id.repeat(64)).created_at(nanos);
    let old = made("00000000-0000-4000-8000-00000000000f", "a", 1_700_000_000_000_000_000);
    let new = made("00000000-0000-4000-8000-000000000001", "b", 1_700_000_100_000_000_000);
    for (pid, pod, id, micros) in [(41, &old, "c", 1_000_000), (42, &new, "d", 2_000_000)] {
        let app = pod.container("app").with_id(&id.repeat(64));
        node.run(pod, pid, &[&app]);
        for cgroup in [pod.cgroup(), row_of(pod, app.id())] {
            let stat = format!("usage_usec {micros}\nuser_usec 0\nsystem_usec 0\n");
            node.host.write(&format!("sys/fs/cgroup{cgroup}/cpu.stat"), &stat);
        }
    }
    let page = start(node.flags(), &[]).page(PATH);
    assert_eq!(page.value("container_cpu_usage_seconds_total", &[]), 2.0);
    assert_eq!(page.value("pod_cpu_usage_seconds_total", &[]), 2.0);
}

#[test]
fn a_bound_on_swap_is_told_and_no_bound_is_not() {
    let (node, app, _) = two_containers();
    node.host.write(&format!("{app}/memory.swap.max"), "1048576\n");
    node.host.write(&format!("{app}/memory.swap.current"), "4096\n");
    let page = start(node.flags(), &[]).page(PATH);
    let of = |family, container| page.lookup(family, &[("container", container)]);
    assert_eq!(of("container_swap_limit_bytes", "app"), Some(1_048_576.0));
    assert_eq!(of("container_swap_limit_bytes", "sidecar"), None);
    assert_eq!(
        (of("container_swap_usage_bytes", "app"), of("container_swap_usage_bytes", "sidecar")),
        (Some(4096.0), Some(0.0))
    );
    assert_eq!(page.value("node_swap_usage_bytes", &[]), 536_870_912.0);
}

#[test]
fn what_could_not_be_read_is_an_error_of_the_page() {
    let (node, app, _) = two_containers();
    node.host.write(&format!("{app}/cpu.stat"), "usage_usec many\n");
    let agent = start(node.flags(), &[]);
    assert_eq!(agent.page(PATH).value("resource_scrape_error", &[]), 1.0);
}
