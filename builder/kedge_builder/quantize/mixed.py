"""Mixed precision: which blocks to leave float, by accuracy lost against time gained.

Sensitivity is measured leave-one-out from the quantized model: a block is left float, and what its
return to INT8 costs in distortion is set against the time it saves. (The other way round, one
block quantized in a float model, misses how errors add up; HAWQ and its followers estimate what is
measured here.) The greedy list is verified step by step on the engine itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from kedge_builder.quantize.candidates import Candidate
from kedge_builder.quantize.plan import Plan

#: Blocks that are left float at the most, as a share of all: beyond that INT8 has lost its point.
_MOST = 0.4


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """What leaving one block float does to the quantized engine.

    Attributes:
        block: Name.
        distortion_saved: Distortion of the quantized engine less that with the block float.
        points_gained: The same of mAP50-95 on the select images, in points; noisy.
        ms_added: Engine time that the block costs in float, milliseconds, at least zero; ``None``
            where the class's runtime is not on this machine.
    """

    block: str
    distortion_saved: float
    points_gained: float
    ms_added: float | None

    @property
    def worth(self) -> float:
        """Distortion saved for a millisecond; 0.05 ms stand for what timing cannot resolve."""
        return self.distortion_saved / max(self.ms_added or 0.0, 0.05)


@dataclass(frozen=True)
class Step:
    """One step of the greedy search.

    Attributes:
        block: Left float by it.
        drop: Estimate of the loss of mAP50-95 afterwards.
        distortion: Afterwards.
        kept: Whether the step stayed.
    """

    block: str
    drop: float
    distortion: float
    kept: bool


@dataclass(frozen=True)
class Mixed:
    """What came of the search.

    Attributes:
        taken: The best candidate, the quantized one itself if nothing helped.
        sensitivity: Of every block, most worth first.
        steps: In order.
    """

    taken: Candidate
    sensitivity: tuple[Sensitivity, ...]
    steps: tuple[Step, ...]


def measure_blocks(
    base: Candidate,
    blocks: Sequence[str],
    measured: Callable[[Plan], Candidate],
    added_ms: Callable[[Candidate, Candidate], float | None],
    tick: Callable[[], None],
) -> tuple[Sensitivity, ...]:
    """Measures every block; the order is that of worth.

    Args:
        base: The quantized candidate.
        blocks: Names.
        measured: Makes and measures a plan; remembers what it has done, so that a search that was
            killed goes on where it stopped.
        added_ms: Engine time of the second candidate over that of the first.
        tick: Called after each block.
    """
    rows = []
    for block in blocks:
        other = measured(replace(base.plan, float_blocks=(block,)))
        before, after = base.survey, other.survey
        added = added_ms(base, other)
        rows.append(
            Sensitivity(
                block=block,
                distortion_saved=before.distortion - after.distortion,
                points_gained=100 * (after.accuracy.map50_95 - before.accuracy.map50_95),
                ms_added=None if added is None else max(0.0, added),
            )
        )
        tick()
    return tuple(sorted(rows, key=lambda each: (-each.worth, each.block)))


def greedy(
    base: Candidate,
    rows: Sequence[Sensitivity],
    measured: Callable[[Plan], Candidate],
    *,
    aim: float,
) -> Mixed:
    """Leaves blocks float, most worth first, until the drop is within ``aim``.

    A step that does not lower the distortion is taken back.

    Args:
        base: The quantized candidate.
        rows: From :func:`measure_blocks`.
        measured: As there.
        aim: Loss of mAP50-95 on the select images that is good enough, a fraction.
    """
    taken, steps = base, []
    most = max(1, int(len(rows) * _MOST))
    for row in [each for each in rows if each.distortion_saved > 0][:most]:
        if taken.drop.estimate <= aim:
            break
        names = (*taken.plan.float_blocks, row.block)
        found = measured(replace(taken.plan, float_blocks=names))
        kept = found.survey.distortion < taken.survey.distortion
        steps.append(Step(row.block, found.drop.estimate, found.survey.distortion, kept))
        if kept:
            taken = found
    return Mixed(taken, tuple(rows), tuple(steps))
