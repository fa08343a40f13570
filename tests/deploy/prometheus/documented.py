"""What docs/prometheus.md tells people to copy. The tests run exactly that."""

import re

from node import REPOSITORY

PAGE = REPOSITORY / "docs" / "prometheus.md"
_BLOCK = re.compile(r"<!-- ([a-z0-9-]+) -->\n```[a-z]*\n(.*?)```\n", re.DOTALL)


def blocks() -> dict[str, str]:
    """Code blocks by the name in the comment above them."""
    found = _BLOCK.findall(PAGE.read_text())
    names = [name for name, _ in found]
    assert len(names) == len(set(names)), f"{PAGE}: a name is used twice in {names}"
    return dict(found)


def block(name: str) -> str:
    known = blocks()
    assert name in known, f"{PAGE} has no block {name}, only {sorted(known)}"
    return known[name]
