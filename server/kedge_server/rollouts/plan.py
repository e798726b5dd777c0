"""A rollout that has not been started: who would get what, when, and why not the others. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from kedge_server.rollouts.sequential import clean_needed
from kedge_shared.api import PlanInfo, PlanStage
from kedge_shared.rollouts import RolloutSpec, StageSpec
from kedge_shared.windows import DAYS


def plan(
    spec: RolloutSpec, classes: Mapping[str, str], stages: Mapping[str, int],
    skipped: Mapping[str, str], empty: Collection[int] = (),
) -> PlanInfo:  # fmt: skip
    """Returns what a rollout would do.

    Args:
        spec: What is asked for.
        classes: Device → class of those who get it.
        stages: Device → stage.
        skipped: Device → reason of the others.
        empty: Stages whose selector selects nobody.
    """
    planned, earliest = [], 0.0
    for index, stage in enumerate(spec.stages):
        names = sorted(device for device, at in stages.items() if at == index)
        counts = dict(sorted(Counter(classes[each] for each in names).items()))
        notes = (*_notes(stage, counts, index in empty), *_window(spec))
        planned.append(
            PlanStage(title=stage.title, classes=counts, devices=tuple(names),
                      notes=notes, earliest_seconds=earliest)
        )  # fmt: skip
        earliest += stage.gate.soak_seconds
    left = {each: "beyond the last stage" for each in classes if each not in stages}
    return PlanInfo(model=spec.model, release=spec.release, stages=tuple(planned),
                    skipped={**skipped, **left})  # fmt: skip


def _window(spec: RolloutSpec) -> list[str]:
    window = spec.window
    if window is None:
        return []
    days = "" if window.days == DAYS else f" on {', '.join(window.days)}"
    return [f"boards take it from {window.begins} to {window.ends}{days}, each by its own clock"]


def _notes(stage: StageSpec, counts: Mapping[str, int], empty: bool) -> list[str]:
    alone = "selects no board: refused" if empty else "no board of its own: passes at once"
    notes = [] if counts else [alone]
    test = stage.gate.sequential
    if test is not None:
        needed = clean_needed(test.good_share, test.bad_share, test.alpha, test.beta)
        notes += [
            f"{name}: {count} board{'' if count == 1 else 's'} cannot decide, {needed} clean ones "
            f"can: { {'hold': 'waits', 'ask': 'asks', 'widen': 'is widened'}[test.on_exhausted] }"
            for name, count in counts.items()
            if count < needed
        ]
    if stage.approval:
        notes.append("waits for a person (`kedge rollout approve`)")
    return notes
