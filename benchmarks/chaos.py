"""Chaos: `kill -9` of a real agent's processes, and real power cuts on ext4.

    python benchmarks/chaos.py [--json] [--kills 500] [--cuts 300] [--seed 1]

Kills fall on supervisor, updater, runner and preflight child of one agent as it really runs, while
releases of a real detector go back and forth. Power cuts are of a loop image (root and loop devices
are needed), under the agent's real updater with a simulated runner; after each the runner's own
start loads the engine by the real runtime. After every blow everything is checked anew.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

#: Run by its path, only this folder is searched for modules.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import chaos_cuts, chaos_kills
from benchmarks.chaos_board import Record
from benchmarks.common import Row, as_object, as_table
from kedge_shared import machine

_STOPS = (signal.SIGINT, signal.SIGTERM)
_FINDINGS = {
    "engine": "no verified engine served or could be",
    "altered": "stored files that are not what their name says",
    "state": "journals or slots unreadable or at odds",
    "forgotten": "acknowledged states or metadata lost",
    "blamed": "engines blamed for it",
    "stuck": "starts or updates that did not end",
    "token": "boards that needed another enrolment token",
}


def main() -> int:
    """Tries and prints; the exit status is 1 where something did not hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--cuts", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for each in _STOPS:
        signal.signal(each, _stop)
    kills, cuts = Record("kill -9", options.kills), Record("power cuts", options.cuts)
    why_not = chaos_cuts.why_not()
    # What was tried until Ctrl-C is told all the same.
    with suppress(KeyboardInterrupt), tempfile.TemporaryDirectory(prefix="kedge-chaos-") as folder:
        if kills.planned:
            chaos_kills.run(Path(folder) / "kills", kills, options.seed)
        if cuts.planned and not why_not:
            chaos_cuts.run(Path(folder) / "cuts", cuts, options.seed)
    print(file=sys.stderr)
    rows = [*_kills(kills), *_cuts(cuts, why_not)]
    print(as_object(machine.describe(), rows) if options.json else as_table(rows, ""))
    return 1 if any(each.holds is False for each in rows) else 0


def _stop(*_: object) -> None:
    """Ends the trial; a second Ctrl-C does not keep mounts and processes from being put away."""
    for each in _STOPS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def _kills(record: Record) -> list[Row]:
    if not record.done:
        return _none("kills", record, "interrupted")
    return [
        *_rows(record, "kills"),
        Row(name="kills: frames lost while the runner lived", value=record.lost, unit="frames",
            target=0, holds=record.lost == 0),
        *_times(record, "kills: until frames and commands again"),
    ]  # fmt: skip


def _cuts(record: Record, why_not: str) -> list[Row]:
    if not record.done:
        return _none("cuts", record, why_not or "interrupted")
    return [*_rows(record, "cuts"), *_times(record, "cuts: until an engine is in memory")]


def _none(what: str, record: Record, why: str) -> list[Row]:
    if not record.planned:
        return []
    return [Row(name=f"{what} survived: not measured ({why})", value=None, unit=what,
                target=record.planned)]  # fmt: skip


def _rows(record: Record, what: str) -> list[Row]:
    well, planned = record.survived, record.planned
    rows = [
        Row(name=f"{what} survived", value=well, unit=what, target=planned, holds=well >= planned)
    ]
    for kind, said in _FINDINGS.items():
        count = record.found[kind]
        rows.append(Row(name=f"{what}: {said}", value=count, unit="times", target=0,
                        holds=count == 0))  # fmt: skip
    rows.append(Row(name=f"{what}: sent again of files that were whole", value=record.again,
                    unit="bytes", target=0, holds=record.again == 0))  # fmt: skip
    rows.append(Row(name=f"{what}: updates confirmed meanwhile", value=record.updates, unit=""))
    rows.append(Row(name=f"{what}: updates that had to be begun again", value=record.retried,
                    unit=""))  # fmt: skip
    return rows


def _times(record: Record, name: str) -> list[Row]:
    ordered = sorted(record.recoveries)
    figures: list[tuple[str, Callable[[list[float]], float]]] = [
        ("median", lambda each: each[len(each) // 2]),
        ("longest", lambda each: each[-1]),
    ]
    return [Row(name=f"{name}, {said}", value=of(ordered), unit="s") for said, of in figures]


if __name__ == "__main__":
    sys.exit(main())
