"""LangChain's standard suite against a fleet and against llama-server with the same model: what the model itself cannot
pass fails at both.

    python -m tests.bench.langchain_peer [-k EXPRESSION]

Expected failures are run as any other case here. It prints a table of all cases that fail somewhere, as Markdown.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from paddler.cores import num_usable_cores
from paddler.up.starter import find_starter
from tests.bench.llama_server import find_binary, serving

ROOT = Path(__file__).resolve().parents[2]
SUITE = "tests/langchain"
PEER = "LANGCHAIN_PEER"
SLOTS = 4
CONTEXT = 8192
PASSED = "passes"


def run_suite(folder: Path, peer: str | None, choice: list[str]) -> dict[str, str]:
    """What became of each case: `PASSED`, or the first line of its failure. Skipped ones are left out; `choice` are
    further arguments of pytest."""
    report = folder / "report.xml"
    environment = os.environ | ({PEER: peer} if peer else {})
    flags = ("-q", "--runxfail", "--tb=line", "-p", "no:randomly", f"--junitxml={report}")
    subprocess.run(
        [sys.executable, "-m", "pytest", SUITE, *flags, *choice], cwd=ROOT, env=environment, stdout=sys.stderr
    )
    found: dict[str, str] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        trouble = [one for kind in ("failure", "error") for one in case.findall(kind)]
        if case.find("skipped") is None:
            told = trouble[0].get("message", "") if trouble else PASSED
            found[case.get("name", "")] = told.split("\n")[0][:120]
    return found


def main() -> int:
    choice = sys.argv[1:]
    threads = num_usable_cores()
    with tempfile.TemporaryDirectory(prefix="paddler-bench-") as name:
        folder = Path(name)
        ours = run_suite(folder, None, choice)
        sizes: dict[str, Any] = {"slots": SLOTS, "context_size": CONTEXT, "threads": threads}
        with serving(find_binary(), find_starter(), **sizes, log=folder / "peer.log") as port:
            theirs = run_suite(folder, f"http://127.0.0.1:{port}/v1", choice)
    num_passed = [sum(one == PASSED for one in found.values()) for found in (ours, theirs)]
    print(f"Of {len(ours)} cases {num_passed[0]} pass with Paddler, {num_passed[1]} with llama-server.\n")
    print("| case | Paddler | llama-server |\n|---|---|---|")
    for case in sorted(ours.keys() | theirs.keys()):
        pair = [found.get(case, "is skipped").replace("|", "\\|") for found in (ours, theirs)]
        if pair != [PASSED, PASSED]:
            print(f"| `{case}` | {pair[0]} | {pair[1]} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
