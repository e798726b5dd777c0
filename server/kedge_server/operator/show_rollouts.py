"""How plans, replays and power tables are shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from kedge_server.operator.show import print_json, print_table
from kedge_shared import api

if TYPE_CHECKING:
    from kedge_server.rollouts.simulate.power import Power

_NAMES = 5


def plan(found: api.PlanInfo, *, as_json: bool) -> None:
    """Shows who would get what, when, and why not the others."""
    if as_json:
        return print_json(found)
    rows = [
        (
            each.title,
            f"{each.earliest_seconds:.0f} s",
            ", ".join(f"{count} {name}" for name, count in each.classes.items()),
            ", ".join(each.devices[:_NAMES]) + (" …" if len(each.devices) > _NAMES else ""),
            "; ".join(each.notes),
        )
        for each in found.stages
    ]
    columns = ("stage", "earliest", "boards", "which", "gate")
    anybody = any(each.devices for each in found.stages)
    said = "not started" if anybody else "nobody would get it, so that it is refused"
    print_table(f"{found.model} {found.release}, {said}", columns, rows, "No stage.")
    why = Counter(found.skipped.values())
    first = {reason: name for name, reason in reversed(found.skipped.items())}
    left = [(str(count), reason, first[reason]) for reason, count in why.most_common()]
    return print_table("Left out", ("boards", "why", "for example"), left, "Nobody is left out.")


def replay(found: Sequence[api.DecisionInfo], *, as_json: bool) -> None:
    """Shows decisions beside what their evidence says today."""
    if as_json:
        return print_json(found)
    rows = [
        (
            str(each.id),
            datetime.fromtimestamp(each.at, timezone.utc).strftime("%Y-%m-%d %H:%M:%S"),
            str(each.stage + 1),
            each.verdict,
            "same" if each.same else f"different: {each.again}, {each.again_reason}",
            str(each.devices),
            each.reason,
        )
        for each in found
    ]
    columns = ("decision", "at (UTC)", "stage", "verdict", "again", "boards", "why")
    return print_table("Decisions", columns, rows, "No decision has moved it yet.")


def power(found: Sequence[Power], *, as_json: bool) -> None:
    """Shows how gates do on simulated fleets."""
    if as_json:
        return print_json(
            [
                {
                    "rule": each.rule, "setting": each.setting, "scenario": each.scenario,
                    "devices": each.devices, "fleets": each.fleets, "stopped": each.stopped,
                    "asked": each.asked, "exposed": each.exposed,
                    "bad_exposed": each.bad_exposed, "hours": each.hours, "tuned": each.tuned,
                }
                for each in found
            ]
        )  # fmt: skip
    rows = [
        (
            f"{each.devices:,}",
            each.scenario,
            each.rule if each.tuned else f"{each.rule} (cannot be tuned)",
            each.setting,
            f"{each.stopped:.1%}",
            f"{each.asked:.1%}",
            f"{each.exposed:.1f}",
            f"{each.bad_exposed:.2f}",
            f"{each.hours:.1f}",
        )
        for each in sorted(found, key=lambda one: (one.devices, one.scenario))
    ]
    columns = ("devices", "release", "gate", "setting", "stopped", "of it asked", "boards exposed",
               "bad boards exposed", "hours")  # fmt: skip
    return print_table("Power, others at the same false halts", columns, rows, "No fleet.")
