"""Try at full size what breaks a program: damage, kills and crowds, and write the page.

    python experiments/resilience.py [--requests 10000] [--users 8]

The tests that `make test` runs at a small size are run at full size, those of damaged files and
those of kills; then several users ask the page's server for many things at once. The figures go
to results/resilience.json and docs/results/resilience.md.
"""

import argparse
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pages import PAGES, RESULTS, ROOT, markdown, read, update
from soak import soak

from sparsefield.core.version import code_version
from sparsefield.evaluation.report import write_report
from sparsefield.profiling.timing import environment

SCRIPT = "resilience.py"
# What each group of tests shows, and where they are; a test says itself how often it tries.
TESTS = {
    "damaged data files": ("tests/data/formats/test_contract.py",),
    "damaged checkpoints": ("tests/inference/test_checkpoint.py",),
    "kills": ("tests/test_kills.py",),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=10_000, help="of all users together")
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--check", action="store_true", help="only compare page and results")
    options = parser.parse_args()
    if not options.check:
        tests = {name: run_tests(paths) for name, paths in TESTS.items()}
        crowd = soak(options.requests, options.users)
        head = environment() | {"commit": code_version()}
        write_report(RESULTS / "resilience.json", head | {"tests": tests, "soak": crowd})
    results = read("resilience")
    for fault in results["soak"]["faults"]:
        print(fault)
    parts = {
        "tests": lambda: tests_table(results["tests"]),
        "soak": lambda: soak_table(results["soak"]),
    }
    return update(PAGES / "resilience.md", SCRIPT, parts)


def run_tests(paths: Sequence[str]) -> dict[str, Any]:
    """Run the slow tests of some files; return how many there are, failed, and tried what."""
    start = time.perf_counter()
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "slow", f"--junitxml={report}"]
        subprocess.run([*command, *paths], cwd=ROOT, check=False)
        suite = ElementTree.parse(report).getroot()
    cases = list(suite.iter("testcase"))
    return {
        "tests": len(cases),
        "failed": sum(any(x.tag in ("failure", "error") for x in case) for case in cases),
        "skipped": sum(any(x.tag == "skipped" for x in case) for case in cases),
        "trials": sum(int(x.attrib["value"]) for x in suite.iter("property")),
        "seconds": time.perf_counter() - start,
    }


def tests_table(groups: Mapping[str, Mapping[str, Any]]) -> str:
    """Write what was tried how often, and how much of it failed."""
    lines = [
        [
            name,
            f"{group['tests'] - group['skipped']}",
            f"{group['trials']:,}",
            f"{group['failed']}",
            f"{group['seconds']:,.0f}",
        ]
        for name, group in groups.items()
    ]
    return markdown(["", "tests", "trials", "failed tests", "seconds"], lines)


def soak_table(crowd: Mapping[str, Any]) -> str:
    """Write how often each thing was asked for, and how long it took."""
    lines = [
        [
            kind,
            f"{each['count']:,}",
            f"{each['faults']}",
            f"{each['median_seconds']:.2f}",
            f"{each['longest_seconds']:.1f}",
        ]
        for kind, each in crowd["kinds"].items()
    ]
    return markdown(["", "requests", "faults", "seconds, median", "longest"], lines)


if __name__ == "__main__":
    sys.exit(main())
