"""Writes the table of values in the chart's README from the comments of values.yaml.

A comment that begins with `# --` describes the next key, and whatever is below it.
"""

import json
import re
import sys

import yaml

import render

BEGIN = "<!-- values: written by `make chart-docs` -->"
END = "<!-- end of values -->"


def described(text: str) -> dict[str, str]:
    """Descriptions by dotted key, from the text of values.yaml."""
    found, path, comment = {}, [], None
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# --"):
            comment = stripped[4:].strip()
        elif stripped.startswith("#"):
            # A line of a description goes on; any other comment is for readers of the file.
            comment = f"{comment} {stripped[1:].strip()}" if comment else None
        elif match := re.match(r"( *)([A-Za-z0-9_.\-/]+):", line):
            depth = len(match[1]) // 2
            path = path[:depth] + [match[2]]
            if comment:
                found[".".join(path)] = comment
            comment = None
        else:
            comment = None
    return found


def table(values_text: str) -> str:
    values, descriptions = yaml.safe_load(values_text), described(values_text)
    rows = ["| Key | Default | Meaning |", "|---|---|---|"]

    def walk(prefix: str, value) -> None:
        if prefix in descriptions:
            default = json.dumps(value, ensure_ascii=False)
            rows.append(f"| `{prefix}` | `{default}` | {descriptions[prefix]} |")
        elif isinstance(value, dict) and value:
            for key, item in value.items():
                walk(f"{prefix}.{key}" if prefix else key, item)
        else:
            sys.exit(f"readme: {prefix} has no description in values.yaml")

    walk("", values)
    return "\n".join(rows)


def readme() -> str:
    """README.md as it should be."""
    text = (render.CHART / "README.md").read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n\n{table((render.CHART / 'values.yaml').read_text())}\n\n{END}{after}"


if __name__ == "__main__":
    new = readme()
    (render.CHART / "README.md").write_text(new)
