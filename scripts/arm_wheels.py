"""Do the agent's dependencies come as wheels for 64-bit Arm, for each Python it supports?

Asks pip, which asks its index: ``python scripts/arm_wheels.py [--json]``. Nothing is installed.
Exit status: 0 all do, 1 some do not, 2 pip could not ask.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
#: What a board installs; each runtime is asked by itself, for a board takes one.
EXTRAS = ("agent", "onnxruntime", "openvino", "ncnn", "video")
#: JetPack 5 has glibc 2.31, JetPack 6 and Raspberry Pi OS 12 have 2.35 and 2.36.
PLATFORMS = ("manylinux2014_aarch64", "manylinux_2_28_aarch64", "manylinux_2_31_aarch64")
_PROJECT = Path(__file__).parents[1] / "pyproject.toml"
_SECONDS = 600


@dataclass(frozen=True)
class Answer:
    """Of pip, for one Python and one extra.

    Attributes:
        python: Version.
        extra: Of ``pyproject.toml``.
        resolves: Every distribution has a wheel.
        why: pip's reason if not.
    """

    python: str
    extra: str
    resolves: bool
    why: str = ""


def wanted(extra: str, project: Path = _PROJECT) -> list[str]:
    """Returns the requirements of the core and one extra."""
    told = tomllib.loads(project.read_text())["project"]
    return [*told["dependencies"], *told["optional-dependencies"][extra]]


def ask(python: str, extra: str, platforms: Sequence[str] = PLATFORMS) -> Answer:
    """Asks pip whether everything of an extra has a wheel."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
            "--only-binary=:all:", "--python-version", python, "--implementation", "cp",
            "--dest", folder, *(word for each in platforms for word in ("--platform", each)),
            *wanted(extra),
        ]  # fmt: skip
        told = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    errors = [line for line in told.stderr.splitlines() if line.startswith("ERROR")]
    why = re.sub(r"\s+", " ", errors[0])[:300] if errors else ""
    return Answer(python, extra, told.returncode == 0, why)


def main() -> int:
    """Prints a table; with ``--json`` a list."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--python", action="append", choices=PYTHONS)
    parser.add_argument("--extra", action="append", choices=EXTRAS)
    asked = parser.parse_args()
    answers = [
        ask(python, extra) for extra in asked.extra or EXTRAS for python in asked.python or PYTHONS
    ]
    if asked.json:
        print(json.dumps([asdict(each) for each in answers], indent=2))
    else:
        for each in answers:
            print(f"{each.python:6}{each.extra:14}{'yes' if each.resolves else 'NO  ' + each.why}")
    if any("connection" in each.why.lower() or "retries" in each.why.lower() for each in answers):
        return 2
    return 0 if all(each.resolves for each in answers) else 1


if __name__ == "__main__":
    sys.exit(main())
