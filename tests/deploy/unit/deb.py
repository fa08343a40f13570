"""What the tests of the package share."""

import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]


def run(*command, **options):
    """Runs a command and gives what it said; a failure shows it."""
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))} exited with {done.returncode}:\n{done.stdout}"
    return done.stdout
