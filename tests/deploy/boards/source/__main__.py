"""Writes the dashboards into the directory that is given."""

import sys
from pathlib import Path

from . import BOARDS

if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
    sys.exit("usage: python -m source DIRECTORY, and the directory must exist")
for name, board in BOARDS.items():
    (Path(sys.argv[1]) / f"{name}.json").write_text(board().text())
