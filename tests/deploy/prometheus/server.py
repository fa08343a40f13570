"""A real Prometheus, and its API."""

import json
import signal
import subprocess
import urllib.parse
from pathlib import Path
from typing import Any

import yaml

from children import Children, free_port, get, wait_until

INTERVAL_SECONDS = 5


def promtool(*arguments: str) -> str:
    """What promtool says; a complaint is an error."""
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"promtool {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
    return done.stdout


class Prometheus:
    """Started with a configuration that promtool has checked."""

    def __init__(self, children: Children, directory: Path, jobs: list[dict[str, Any]], rules: dict[str, Any]) -> None:
        self._children = children
        rule_file, self._config_file = directory / "rules.yaml", directory / "prometheus.yaml"
        rule_file.write_text(yaml.safe_dump(rules))
        timing = {"scrape_interval": f"{INTERVAL_SECONDS}s", "scrape_timeout": f"{INTERVAL_SECONDS}s"}
        config = {"global": timing, "rule_files": [str(rule_file)], "scrape_configs": jobs}
        self._config_file.write_text(yaml.safe_dump(config, sort_keys=False))
        promtool("check", "config", str(self._config_file))
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        children.start(
            "prometheus",
            [
                "prometheus",
                f"--config.file={self._config_file}",
                f"--storage.tsdb.path={directory / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--web.enable-remote-write-receiver",
                "--log.level=warn",
            ],
        )

        def ready() -> bool:
            children.still_run()
            return bool(get(f"{self.url}/-/ready"))

        wait_until("Prometheus is ready", ready)

    def freeze(self) -> None:
        """Ends scraping and rules; what is stored stays and can be asked."""
        self._config_file.write_text("scrape_configs: []\n")
        self._children.signal("prometheus", signal.SIGHUP)
        wait_until("Prometheus scrapes no more", lambda: not self.api("targets", state="active")["activeTargets"])

    def api(self, path: str, **parameters: str | float) -> Any:
        answer = json.loads(
            get(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", "application/json", 30)
        )
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str, at: float) -> list[tuple[dict[str, str], float]]:
        """An instant vector."""
        data = self.api("query", query=expression, time=at)
        assert data["resultType"] == "vector", data["resultType"]
        return [(one["metric"], float(one["value"][1])) for one in data["result"]]

    def points(self, selector: str, at: float, window: str) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
        """What is stored of every series that the selector matches: pairs of time and value."""
        data = self.api("query", query=f"{selector}[{window}]", time=at)
        return [
            (one["metric"], [(float(when), float(value)) for when, value in one["values"]]) for one in data["result"]
        ]
