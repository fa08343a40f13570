"""Reads Prometheus text (0.0.4) into samples, and writes samples as text."""

import re
from collections.abc import Iterable
from typing import NamedTuple

_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)",?')
_ESCAPE = re.compile(r"\\(.)")
IDENTITY = ("container", "id", "image", "name", "namespace", "pod")


class Sample(NamedTuple):
    """One line: a name, labels in the order of their names, a value."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float

    def label(self, name: str) -> str:
        return dict(self.labels).get(name, "")

    @property
    def pod(self) -> tuple[str, str]:
        return self.label("namespace"), self.label("pod")

    def changed(self, **labels: str) -> "Sample":
        return Sample(self.name, tuple(sorted((dict(self.labels) | labels).items())), self.value)


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: "\n" if match[1] == "n" else match[1], text)


def parse(text: str) -> list[Sample]:
    """Every sample of `text`; its timestamp, if it has one, is not kept."""
    samples = []
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        if "{" in line:
            name, _, rest = line.partition("{")
            inner, _, tail = rest.rpartition("}")
            labels = tuple(sorted((key, _unescape(value)) for key, value in _LABEL.findall(inner)))
        else:
            name, _, tail = line.partition(" ")
            labels = ()
        samples.append(Sample(name, labels, float(tail.split()[0])))
    return samples


def write(samples: Iterable[Sample], timestamp_ms: int | None = None) -> str:
    """Text with families together, each sample with the timestamp if one is given."""
    suffix = "" if timestamp_ms is None else f" {timestamp_ms}"
    lines = []
    for name, labels, value in sorted(samples):
        inside = ",".join(f'{key}="{_escape(text)}"' for key, text in labels)
        lines.append(f"{name}{{{inside}}} {value!r}{suffix}" if inside else f"{name} {value!r}{suffix}")
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
