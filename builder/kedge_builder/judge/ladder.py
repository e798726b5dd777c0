"""What to try next when INT8 loses too much: float blocks, then training, then float. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from kedge_shared.errors import InputError

Rung = Literal["mixed", "qat", "float"]
RUNGS: tuple[Rung, ...] = get_args(Rung)
#: Points of mAP50-95 that are aimed at where the class has no budget, or a wide one.
AIM = 0.005


def aim_for(budget: float | None) -> float:
    """Returns the loss on the select images that ends the search.

    Half a point, or a quarter of a wider budget, but never more than half of the budget: what is
    chosen on one split loses a little more on another.
    """
    return AIM if budget is None else min(max(AIM, budget / 4), budget / 2)


def loses(drop: float, low: float, aim: float) -> bool:
    """Says whether a loss on the select images is worth climbing for.

    Some tens of images leave a drop uncertain by a point: the estimate must be over the aim, and
    the images must at least agree that there is a loss. The verdict on the gate split is stricter.

    Args:
        drop: Estimate, a fraction.
        low: Lower end of its 95 % interval.
        aim: From :func:`aim_for`.
    """
    return drop > aim and low > 0


def next_rung(
    allowed: Sequence[Rung], tried: Sequence[Rung], *, drop: float, low: float, aim: float
) -> Rung | None:
    """Returns what to try next, or ``None`` when it is good enough or nothing is left."""
    if not loses(drop, low, aim):
        return None
    return next((each for each in RUNGS if each in allowed and each not in tried), None)


def read_rungs(given: str) -> tuple[Rung, ...]:
    """Reads ``"mixed,qat"``; an empty text or ``none`` allows nothing.

    Raises:
        InputError: There is no such rung.
    """
    words = [each.strip() for each in given.split(",") if each.strip() not in {"", "none"}]
    unknown = [each for each in words if each not in RUNGS]
    if unknown:
        raise InputError(
            f"--if-it-loses {unknown[0]!r} is not known", f"use {', '.join(RUNGS)}, or none"
        )
    return tuple(each for each in RUNGS if each in words)
