"""One scene for all tests: the demo node, agents, kubelets and Prometheus, in a temporary directory.

Everything is scraped for a while, and what needs live programs is looked at. Then all but Prometheus end, scraping
ends, and the tests ask what is stored: nothing moves under their hands, and nothing else needs the machine.
"""

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

import promql
import scenes
from children import Children, free_port, wait_until
from exposition import Sample
from kubelets import CapturedKubelet, DemoKubelet, kube_state_metrics, measured
from node import Agent, Node, Pod
from promql import Measured
from server import INTERVAL_SECONDS, Prometheus, promtool

# Points that every series should have before anything is computed from it.
POINTS = 4
VMAGENT = "a-vmagent"
# Labels that a target has and a page has not.
TARGET_LABELS = {"cluster", "instance", "job", "metrics_path", "node", "endpoint"}

Page = set[tuple[str, tuple[tuple[str, str], ...], float]]


@dataclass
class Scene:
    clusters: dict[str, list[scenes.Job]]
    prometheus: Prometheus
    # A moment up to which everything is stored.
    at: float
    pods: list[Pod]
    captured: CapturedKubelet
    agents: dict[str, str]
    # What the agent that serves every pod said of containers, a little before and a little after `at`.
    pages: tuple[list[Sample], list[Sample]]
    rules: list[dict]
    # Samples of containers in one collection, as an agent served them and as Prometheus stored them.
    collections: dict[str, tuple[Page, Page]] = field(default_factory=dict)
    # What two scrapers got of one collection, and a later one.
    pair: tuple[Page, Page, Page] = (set(), set(), set())
    measured: dict[tuple[str, str, str, float], list[Measured]] = field(default_factory=dict)

    @property
    def moments(self) -> list[float]:
        """The last moments of which everything is stored, one to a scrape, newest first."""
        return [self.at - number * INTERVAL_SECONDS for number in range(POINTS - 1)]

    def series(self, cluster: str, family: str, measure: str, at: float) -> list[Measured]:
        """`measure` of each series of `family` at `at`, nothing added up."""
        asked = cluster, family, measure, at
        if asked not in self.measured:
            expression = measure.replace("$series", f'{family}{{cluster="{cluster}"}}')
            self.measured[asked] = [Measured(*one) for one in self.prometheus.query(expression, at)]
        return self.measured[asked]


def containers(samples: list[Sample]) -> Page:
    """Samples of containers as Prometheus keeps them: without blank labels."""
    return {
        (one.name, tuple(pair for pair in one.labels if pair[1]), one.value)
        for one in samples
        if one.name.startswith("container_") and one.labels
    }


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    if os.geteuid() != 0:
        pytest.fail("the demo node makes cgroups and network namespaces: run this as root")
    for program in ("prometheus", "promtool", "vmagent"):
        if shutil.which(program) is None:
            pytest.fail(f"{program} is missing: make setup-test")
    directory = tmp_path_factory.mktemp("prometheus")
    children = Children(directory)
    pages = []
    ended = threading.Event()
    complaints: list[str] = []
    try:
        node = Node(children, directory)
        captured = CapturedKubelet()
        samples = measured(node, ended)
        kubelets = [
            DemoKubelet(node, samples),
            DemoKubelet(node, samples, cri_stats=True),
            DemoKubelet(node, samples, crio=True),
            captured,
        ]
        pages += [one.pages for one in kubelets]
        pages.append(kube_state_metrics(node, captured))
        site = scenes.Site(node, *kubelets, pages[-1])
        clusters = scenes.clusters(site)
        jobs = [job for of_cluster in clusters.values() for job in of_cluster]
        prometheus = Prometheus(children, directory, jobs, promql.rules(("kubelet", scenes.K3S_JOB)))
        vmagent_jobs = start_vmagent(children, directory, site, prometheus)
        expected = len(jobs) + vmagent_jobs - sum(scenes.NOBODY in str(job["static_configs"]) for job in jobs)

        def scraped() -> float | None:
            children.still_run()
            # A scrape that is still under way has begun later.
            at = float(int(time.time()) - INTERVAL_SECONDS)
            counts = prometheus.query("sum_over_time(up[5m]) and up == 1", at)
            if len(counts) == expected and all(count >= POINTS for _, count in counts):
                return at
            silent = [f"{labels['cluster']}: {labels['job']}" for labels, _ in prometheus.query("up == 0", at)]
            fewest = min([count for _, count in counts], default=0)
            raise ValueError(f"{len(counts)} of {expected} targets, fewest scrapes {fewest}, silent {silent}")

        wait_until("every target was scraped often enough", scraped, 100, 1)
        agents = {"kata": node.kata_only, "all": node.everything}
        collections = {
            "kata": one_collection(prometheus, node.kata_only, "a-without-own-network-rule"),
            "all": one_collection(prometheus, node.everything, "b"),
        }
        pair = two_scrapers(node.everything)
        before = node.everything.samples("/metrics/cadvisor")
        at = wait_until("every target was scraped once more", scraped, 60, 0.5)
        served = before, node.everything.samples("/metrics/cadvisor")
        rules = [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]
        prometheus.freeze()
        complaints += children.stop("prometheus")
        addresses = {name: agent.address for name, agent in agents.items()}
        yield Scene(clusters, prometheus, at, list(node), captured, addresses, served, rules, collections, pair)
        children.still_run()
    finally:
        ended.set()
        complaints += children.stop()
        for one in pages:
            one.stop()
    assert not complaints, complaints


def one_collection(prometheus: Prometheus, agent: Agent, cluster: str) -> tuple[Page, Page]:
    """What `agent` served and what was stored of it, of the same collection if they meet within half a minute."""
    served: list[Page] = []
    selector = f'{{cluster="{cluster}", instance="{agent.address}", __name__=~"container_.+"}}'
    last: tuple[Page, Page] = (set(), set())

    def met() -> bool:
        nonlocal last
        served[:0] = [containers(agent.samples())]
        stored = {
            (
                labels["__name__"],
                tuple(sorted((k, v) for k, v in labels.items() if k not in TARGET_LABELS and k != "__name__")),
                value,
            )
            for labels, value in prometheus.query(selector, time.time())
        }
        # The one sample without labels of its own gets those of the target.
        stored = {one for one in stored if one[0] != "container_scrape_error"}
        last = max(((page, stored) for page in served[:10]), key=lambda both: len(both[0] & both[1]))
        return last[0] == last[1]

    # If they do not, the test shows in what they differ.
    with contextlib.suppress(AssertionError):
        wait_until("a scrape of Prometheus and one of ours meet", met, 30, 0.5)
    return last


def two_scrapers(agent: Agent) -> tuple[Page, Page, Page]:
    """Pages that two scrapers got at the same moment, and one of a later collection."""
    got: list[Page] = [set(), set()]

    def scrape(number: int) -> None:
        got[number] = containers(agent.samples())

    # The first may still get a collection that is too old for the second; not often.
    for _ in range(5):
        threads = [threading.Thread(target=scrape, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if got[0] == got[1]:
            break

    def later() -> Page | None:
        page = containers(agent.samples())
        return page if page != got[0] else None

    return got[0], got[1], wait_until("there is another collection", later, 20)


def start_vmagent(children: Children, directory: Path, site: scenes.Site, prometheus: Prometheus) -> int:
    """vmagent with the page's configuration for Prometheus; what it scrapes goes to the same store. Tells how many
    targets it has."""
    jobs = scenes.in_cluster(site, VMAGENT, scenes.plain(site))
    config = directory / "vmagent.yaml"
    config.write_text(yaml.safe_dump({"global": {"scrape_interval": f"{INTERVAL_SECONDS}s"}, "scrape_configs": jobs}))
    promtool("check", "config", str(config))
    children.start(
        "vmagent",
        [
            "vmagent",
            f"-promscrape.config={config}",
            "-promscrape.config.strictParse",
            f"-remoteWrite.url={prometheus.url}/api/v1/write",
            f"-remoteWrite.tmpDataPath={directory / 'vmagent'}",
            "-remoteWrite.flushInterval=500ms",
            # More than one would send a target's samples in any order, which Prometheus refuses.
            "-remoteWrite.queues=1",
            f"-httpListenAddr=127.0.0.1:{free_port()}",
        ],
    )
    return len(jobs)
