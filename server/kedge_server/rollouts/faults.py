"""What is wrong with a rollout that somebody asks for. Pure; every fault names its field."""

from __future__ import annotations

import math
from collections.abc import Iterator

from kedge_server.devices.selectors import SelectorError, parse
from kedge_shared.rollouts import RolloutSpec, StageSpec
from kedge_shared.windows import longest_shut

#: What a board needs beside waiting: fetching, trial, shadow, probation.
WORK_SECONDS = 1800


def faults(spec: RolloutSpec) -> list[str]:
    """Returns every fault of a specification, ``field: what is wrong``; empty if it is sound."""
    endless = list(_endless(spec))
    if endless:
        return endless
    return [*_sizes(spec.stages), *_selectors(spec), *_gates(spec.stages), *_window(spec),
            *_deadline(spec)]  # fmt: skip


def _endless(spec: RolloutSpec) -> Iterator[str]:
    """Yields numbers that are none: YAML and command lines know ``inf`` and ``nan``, JSON not."""
    times = {"deadline_hours": spec.deadline_hours}
    if spec.retry is not None:
        times["retry.backoff_seconds"] = spec.retry.backoff_seconds
    for index, stage in enumerate(spec.stages):
        gate = stage.gate
        given = {"percent": stage.percent, "gate.max_failure_share": gate.max_failure_share,
                 "gate.soak_seconds": gate.soak_seconds,
                 "gate.silence_seconds": gate.silence_seconds,
                 "gate.limits.latency_p95_ms": gate.limits.latency_p95_ms}  # fmt: skip
        times |= {f"stages[{index}].{name}": value for name, value in given.items()}
    for name, value in times.items():
        if value is not None and not math.isfinite(value):
            yield f"{name}: {value} is no number to go by"


def _deadline(spec: RolloutSpec) -> Iterator[str]:
    hours = spec.deadline_hours
    soaks = sum(each.gate.soak_seconds for each in spec.stages)
    if hours is not None and hours * 3600 <= soaks:
        yield (
            f"deadline_hours: stages soak for {soaks / 3600:g} h in all, so that it is always over "
            f"after {hours:g}"
        )


def _window(spec: RolloutSpec) -> Iterator[str]:
    if spec.window is None:
        return
    shut = longest_shut(spec.window)
    if shut is None:
        yield "window.days: it never opens, name a day"
        return
    needed = shut + WORK_SECONDS
    for index, stage in enumerate(spec.stages):
        # A board that waits for its window says nothing final, and silence is failure.
        if shut and stage.gate.silence_seconds < needed:
            yield (
                f"stages[{index}].gate.silence_seconds: the window is shut for up to "
                f"{shut / 3600:g} h, so boards may be silent for {needed:.0f}"
            )


def _sizes(stages: tuple[StageSpec, ...]) -> Iterator[str]:
    largest: dict[str, float] = {"percent": 0.0, "count": 0}
    for index, stage in enumerate(stages):
        given = {"percent": stage.percent, "count": stage.count, "selector": stage.selector or None}
        named = [name for name, value in given.items() if value is not None]
        if len(named) != 1:
            said = " and ".join(named) or "nothing"
            yield f"stages[{index}]: {said} given, give one of percent, count, selector"
            continue
        size = stage.percent if stage.percent is not None else stage.count
        if size is not None and size <= largest[named[0]]:
            yield (
                f"stages[{index}].{named[0]}: stages must grow, "
                f"{size:g} comes after {largest[named[0]]:g}"
            )
        if size is not None:
            largest[named[0]] = size


def _selectors(spec: RolloutSpec) -> Iterator[str]:
    texts = {"selector": spec.selector}
    texts |= {f"order[{index}]": text for index, text in enumerate(spec.order)}
    texts |= {f"stages[{index}].selector": each.selector for index, each in enumerate(spec.stages)}
    for name, text in texts.items():
        if not text and not name.startswith("order"):
            continue
        try:
            parse(text)
        except SelectorError as error:
            yield f"{name}: {error.what}"


def _gates(stages: tuple[StageSpec, ...]) -> Iterator[str]:
    for index, stage in enumerate(stages):
        gate, test = stage.gate, stage.gate.sequential
        for name, given in (("max_failure_share", gate.max_failure_share),
                            ("min_healthy", gate.min_healthy)):  # fmt: skip
            if test is not None and given:
                yield f"stages[{index}].gate.{name}: a sequential test does not ask for it"
        if test is not None and test.bad_share <= test.good_share:
            yield (
                f"stages[{index}].gate.sequential.bad_share: {test.bad_share:g} must be over "
                f"good_share, {test.good_share:g}"
            )
