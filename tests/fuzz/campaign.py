"""Runs the fuzz targets side by side and prints what came of it.

    campaign.py PROGRAM WORK --seconds 60 --targets ttrpc,cri   fuzz each for a minute, going on from what was found before
    campaign.py PROGRAM WORK --check --seconds 2                the corpus alone, then two seconds, the same each time
    campaign.py PROGRAM WORK --merge                            write the corpus anew: the fewest inputs that reach as much

PROGRAM is the instrumented `fuzz`, WORK a directory for inputs found, logs and failures. Fails when some input makes a
target fail. `make fuzz` compiles the program and calls this.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HOME = Path(__file__).parent

# Longest time for one input; all take well below a second, but machines stutter.
TIMEOUT_SECONDS = 60

# What the process may use at most: a leak of libFuzzer's or ours. What one input may use, targets say themselves.
MEMORY_MB = 1024

# What is checked in of one target at most. The smallest inputs first: they are the quickest to try, too.
CORPUS_BYTES = 40 << 10

PULSE = re.compile(r"^#\d+\s.*\bcov: (\d+) ft: \d+ corp: (\S+)")
STAT = re.compile(r"^stat::(\w+):\s+(\d+)")
PANIC = re.compile(r"panicked at (.*)")
WRITTEN = re.compile(r"Test unit written to (\S+)")


@dataclass
class Target:
    """One target, and the longest input worth trying."""

    name: str
    max_len: int


@dataclass
class Outcome:
    """What came of one target. Without a failure all went well."""

    name: str
    executions: int = 0
    per_second: int = 0
    edges: int = 0
    corpus: str = ""
    failure: str = ""


class Campaign:
    """One run over targets."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.work: Path = arguments.work
        listed = subprocess.run([arguments.program], env={"FUZZ_TARGET": "list"}, stdout=subprocess.PIPE, text=True, check=True)
        targets = [Target(name, int(max_len)) for name, max_len in (line.split() for line in listed.stdout.splitlines())]
        programs = {path.stem for path in (HOME / "fuzz_targets").iterdir()}
        if programs != {target.name for target in targets}:
            sys.exit(f"fuzz_targets has {programs} and TARGETS has {[target.name for target in targets]}")
        wanted = [name for name in arguments.targets.split(",") if name]
        unknown = set(wanted) - {target.name for target in targets}
        if unknown:
            sys.exit(f"no target {', '.join(sorted(unknown))}; there are {', '.join(target.name for target in targets)}")
        self.targets = [target for target in targets if not wanted or target.name in wanted]

    def command(self, target: Target, *options: str | Path) -> list[str]:
        """The program on one target."""
        return [str(self.arguments.program), f"-max_len={target.max_len}", *map(str, options)]

    def environment(self, target: Target) -> dict[str, str]:
        """Sockets and files of targets lie in memory, where there is such a place."""
        places = [place for place in ("/dev/shm", os.environ.get("TMPDIR", "/tmp")) if os.path.isdir(place)]
        return os.environ | {"FUZZ_TARGET": target.name, "RUST_BACKTRACE": "1", "TMPDIR": places[0]}

    def inputs(self, target: Target, *places: Path | None) -> list[Path]:
        """Directories of inputs: where new ones go first, then those that are only read."""
        found = [place / target.name for place in places if place]
        found[0].mkdir(parents=True, exist_ok=True)
        return [found[0], *(place for place in found[1:] if place.is_dir())]

    def fuzz(self, target: Target) -> Outcome:
        """Runs one target to its end."""
        check, seconds = self.arguments.check, self.arguments.seconds
        place = self.work / ("check" if check else "corpus")
        if check:
            shutil.rmtree(place / target.name, ignore_errors=True)
        failures, logs = self.work / "failures", self.work / "logs"
        for directory in (failures, logs):
            directory.mkdir(parents=True, exist_ok=True)
        options = [f"-max_total_time={seconds}", f"-timeout={TIMEOUT_SECONDS}", f"-report_slow_units={TIMEOUT_SECONDS}", f"-rss_limit_mb={MEMORY_MB}",
                   f"-artifact_prefix={failures}/{target.name}-", "-print_final_stats=1"]
        options += ["-seed=1"] if check else []
        dictionary = HOME / "dictionaries" / f"{target.name}.dict"
        options += [f"-dict={dictionary}"] if dictionary.exists() else []
        directories = self.inputs(target, place, HOME / "corpus", self.arguments.seeds)
        log = logs / f"{target.name}.log"
        with log.open("wb") as out:
            ended = subprocess.run(self.command(target, *options, *directories), env=self.environment(target), stdin=subprocess.DEVNULL,
                                   stdout=out, stderr=subprocess.STDOUT, check=False)
        outcome = read(target.name, log.read_text(errors="replace"))
        if ended.returncode != 0 and not outcome.failure:
            outcome.failure = f"exit status {ended.returncode}, see {log}"
        return outcome

    def merge(self, target: Target) -> None:
        """Writes the corpus of a target anew. Inputs that once failed stay."""
        shutil.rmtree(self.work / "merged" / target.name, ignore_errors=True)
        corpus = HOME / "corpus"
        directories = self.inputs(target, self.work / "merged", corpus, self.work / "corpus", self.arguments.seeds)
        done = subprocess.run(self.command(target, "-set_cover_merge=1", *directories), env=self.environment(target),
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                              check=False)
        if done.returncode != 0:
            sys.exit(f"merge {target.name}:\n{done.stdout}")
        (corpus / target.name).mkdir(parents=True, exist_ok=True)
        for old in (corpus / target.name).iterdir():
            if not old.name.startswith("regression-"):
                old.unlink()
        room = CORPUS_BYTES
        for new in sorted(directories[0].iterdir(), key=lambda path: (path.stat().st_size, path.name)):
            room -= new.stat().st_size
            if room >= 0:
                # Named by content; a part of the digest is enough to tell them apart.
                shutil.copyfile(new, corpus / target.name / new.name[:16])


def read(name: str, log: str) -> Outcome:
    """Reads libFuzzer's words."""
    outcome = Outcome(name)
    for line in log.splitlines():
        if pulse := PULSE.match(line):
            outcome.edges, outcome.corpus = int(pulse[1]), pulse[2].replace("/", ", ")
        if stat := STAT.match(line):
            match stat[1]:
                case "number_of_executed_units":
                    outcome.executions = int(stat[2])
                case "average_exec_per_sec":
                    outcome.per_second = int(stat[2])
        if panic := PANIC.search(line):
            outcome.failure = panic[1]
        elif (written := WRITTEN.search(line)) and not outcome.failure:
            outcome.failure = written[1]
    return outcome


def table(outcomes: list[Outcome]) -> str:
    """The outcomes in Markdown."""
    lines = ["| target | executions | per second | edges | corpus | failure |", "|---|--:|--:|--:|--:|---|"]
    for it in outcomes:
        lines.append(f"| `{it.name}` | {it.executions} | {it.per_second} | {it.edges} | {it.corpus} | {it.failure or 'none'} |")
    return "\n".join([*lines, f"| all | {sum(it.executions for it in outcomes)} | | | | |"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--targets", default="", help="comma list; all without it")
    parser.add_argument("--seeds", type=Path, help="more inputs, a directory per target: see seeds.py")
    parser.add_argument("--check", action="store_true", help="start from the corpus alone, with the same seed each time")
    parser.add_argument("--merge", action="store_true", help="do not fuzz, write tests/fuzz/corpus anew")
    arguments = parser.parse_args()
    campaign = Campaign(arguments)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        if arguments.merge:
            list(pool.map(campaign.merge, campaign.targets))
            return
        outcomes = list(pool.map(campaign.fuzz, campaign.targets))
    print(table(outcomes))
    if any(outcome.failure for outcome in outcomes):
        sys.exit(f"inputs that failed are in {arguments.work / 'failures'}, what was said in {arguments.work / 'logs'}")


if __name__ == "__main__":
    main()
