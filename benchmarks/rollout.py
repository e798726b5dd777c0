"""Gates of rollouts on simulated fleets: ``python benchmarks/rollout.py [--json]``.

False halts, misses, boards exposed and time, from 10 to 100,000 devices, and how many bad boards
Kedge's gate exposes beside those of others, which are tuned to the same false halts on the same
fleets. The draw is seeded, so figures repeat; only the seconds depend on the machine.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

# Before the project's own: `python benchmarks/rollout.py` puts benchmarks/ on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import Row, as_object, as_table
from kedge_server.rollouts.simulate.power import KEDGE, SCENARIOS, Power, table
from kedge_shared.machine import describe
from kedge_shared.rollouts import SequentialSpec

#: Devices → fleets of each scenario. Fewer of the largest: each is drawn board by board.
SIZES = {10: 1000, 100: 1000, 1_000: 1000, 10_000: 300, 100_000: 40}
#: Failures alone: the peers know no frame times.
SPEC = SequentialSpec(latency_ratio=None, on_exhausted="widen")
#: The least fleet whose classes can be decided; below, a gate asks or widens.
_DECIDABLE = 1_000
_SIMULATION_SECONDS = 5.0
#: Not 1, on which the odds at which a gate asks (ADR 10) were looked for.
_SEED = 2


def rows_of(found: Sequence[Power], seconds: float) -> list[Row]:
    """Returns what one size of fleet brought."""
    kedge = {each.scenario: each for each in found if each.rule == KEDGE}
    size = f"{found[0].devices:,} devices"
    good = kedge["good"]
    stops = {each.rule: each.stopped for each in found if each.scenario == "good"}
    rows = [_share(f"{size}: good releases stopped", good.stopped, good.fleets, SPEC.alpha)]
    for scenario in list(SCENARIOS)[1:]:
        each = kedge[scenario]
        target = SPEC.beta if each.devices >= _DECIDABLE else None
        rows.append(_share(f"{size}: {scenario}, missed", 1 - each.stopped, each.fleets, target))
        rows.append(Row(name=f"{size}: {scenario}, hours to the end", value=each.hours, unit="h"))
        for other in found:
            if other.scenario == scenario and other.rule != KEDGE:
                rows.append(_beside(f"{size}: {scenario}", each, other, stops[other.rule]))
    rows.append(Row(name=f"{size}: one simulated rollout", value=seconds, unit="s",
                    target=_SIMULATION_SECONDS, holds=seconds <= _SIMULATION_SECONDS))  # fmt: skip
    return rows


def _share(name: str, share: float, fleets: int, target: float | None) -> Row:
    """A share with its 95 % interval (Wilson); it holds if the interval is not all above."""
    low, high = wilson(share, fleets)
    holds = None if target is None or low <= target < high else high <= target
    return Row(name=name, value=100 * share, unit="%", interval=(100 * low, 100 * high),
               target=None if target is None else 100 * target, holds=holds)  # fmt: skip


def _beside(name: str, kedge: Power, other: Power, stops: float) -> Row:
    """Bad boards that were exposed, against a peer's.

    Undecided within the interval, and where no setting of the peer stops as few good releases as
    Kedge's gate: who halts everything exposes nobody.
    """
    low, high = kedge.bad_interval(other)
    holds = True if high < 0 else False if low > 0 else None
    title = f"{name}, bad boards | {other.rule} ({other.setting})"
    if not other.tuned:
        title, holds = f"{title}, which stops {stops:.0%} of good ones", None
    return Row(name=title, value=kedge.bad_exposed, unit="boards", target=other.bad_exposed,
               holds=holds, against=other.bad_exposed)  # fmt: skip


def wilson(share: float, count: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share (Wilson 1927)."""
    z = 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z / (1 + z * z / count)
    reach *= (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    return max(0.0, middle - reach), min(1.0, middle + reach)


def main() -> int:
    """Prints the table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--most", type=int, default=max(SIZES), help="largest fleet")
    given = parser.parse_args()
    rows: list[Row] = []
    for devices, fleets in SIZES.items():
        if devices > given.most:
            continue
        print(f"{devices:,} devices, {fleets} fleets a scenario", file=sys.stderr)
        started = time.perf_counter()
        found = table(devices, fleets, SPEC, seed=_SEED)
        # Kedge and every setting of every peer ran on the good fleets, one setting on the others.
        took = time.perf_counter() - started
        rows += rows_of(found, took / (fleets * len(SCENARIOS)))
    print(as_object(describe(), rows) if given.json else as_table(rows, "against"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
