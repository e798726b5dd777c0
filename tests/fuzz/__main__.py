"""Coverage-guided fuzzing of every parser: ``python -m tests.fuzz [--seconds N] [NAME …]``.

Each target runs in a process of its own (libFuzzer ends the process that it finds something in);
what fell over is left in ``--findings``. Needs atheris; Linux on x86-64.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

_RUNS = re.compile(r"Done (\d+) runs|#(\d+)\s")


def main() -> None:
    """Runs the targets one after the other and prints a line, or an object, for each."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("names", nargs="*", help="Targets; default: all.")
    parser.add_argument("--seconds", type=int, default=30, help="For each target.")
    parser.add_argument("--findings", type=Path, default=Path(tempfile.gettempdir()) / "kedge-fuzz")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        _fuzz(given.one, given.seconds, given.findings)
        return
    from tests.fuzz.targets import TARGETS

    given.findings.mkdir(parents=True, exist_ok=True)
    found = [_run(name, given.seconds, given.findings) for name in given.names or TARGETS]
    if given.json:
        print(json.dumps(found, indent=2))
    sys.exit(1 if any(each["finding"] for each in found) else 0)


def _run(name: str, seconds: int, findings: Path) -> dict[str, object]:
    asked = [sys.executable, "-m", "tests.fuzz", "--one", name, "--seconds", str(seconds),
             "--findings", str(findings)]  # fmt: skip
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    runs = max((int(a or b) for a, b in _RUNS.findall(done.stderr)), default=0)
    finding = "" if done.returncode == 0 else done.stderr.strip()[-2000:]
    said = finding or "nothing found"
    print(f"{name}: {runs} executions, {said}", file=sys.stderr, flush=True)
    return {"target": name, "executions": runs, "seconds": seconds, "finding": finding}


def _fuzz(name: str, seconds: int, findings: Path) -> None:
    import atheris

    parsing = ["kedge_shared", "kedge_server", "kedge_agent", "kedge_builder", "tuf",
               "securesystemslib"]  # fmt: skip
    with atheris.instrument_imports(include=parsing):
        from tests.fuzz.targets import TARGETS, feed

    with tempfile.TemporaryDirectory(prefix="kedge-corpus-") as corpus:
        (Path(corpus) / "good").write_bytes(TARGETS[name].good)
        options = [sys.argv[0], corpus, f"-max_total_time={seconds}", "-max_len=4096",
                   "-timeout=20", "-rss_limit_mb=2048",
                   f"-artifact_prefix={findings}/{name.replace(' ', '-')}-"]  # fmt: skip
        atheris.Setup(options, lambda data: feed(name, data))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
