"""What a gate says. Pure; stored with each decision that moved a rollout."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from kedge_shared.api import GateVerdict

Measure = Literal["failures", "latency", "agreement"]
#: The classes of a stage together, where it has several.
FLEET = "all classes"


@dataclass(frozen=True)
class Finding:
    """What one measure says of one device class.

    Attributes:
        device_class: Which, or ``all classes``.
        measure: Which.
        verdict: pass, fail, undecided; ``idle`` where there was nothing to compare with.
        against: Log-evidence that the class is bad.
        leaning: The same, of all boards so far.
        halts_at: Bound of ``against``.
        for_it: Log-evidence that it is good.
        passes_at: Bound of ``for_it``.
        seen: Devices whose outcome is known.
        exhausted: No device is to come that could still decide it.
        since: Unix seconds since when the devices that proved it are healthy, or ``None``.
        reason: The sentence an operator reads.
    """

    device_class: str
    measure: Measure
    verdict: Literal["pass", "fail", "undecided", "idle"]
    against: float
    leaning: float
    halts_at: float
    for_it: float
    passes_at: float
    seen: int
    exhausted: bool
    since: float | None
    reason: str


@dataclass(frozen=True)
class Decision:
    """What a gate says.

    Attributes:
        verdict: pass, fail or undecided.
        reason: The sentence an operator reads.
        exhausted: Undecided, and no device is to come that could change it.
        doubtful: What was seen would halt it, were the chance of error not shared.
        findings: What it rests on, by class and measure; empty for thresholds.
    """

    verdict: GateVerdict
    reason: str
    exhausted: bool = False
    doubtful: bool = False
    findings: tuple[Finding, ...] = ()


def named(device_class: str, reason: str, classes: int) -> str:
    """Returns a sentence that names its class where there are several."""
    return f"{device_class}: {reason}" if classes > 1 and device_class else reason


def soaking(healthy: int, since: float, soak_seconds: float, now: float) -> str:
    """Returns the sentence of a stage that is proven but not for long enough; else empty."""
    left = soak_seconds - (now - since)
    return f"{healthy} devices healthy, soaking {left:.0f} s more" if left > 0 else ""


def joined(reasons: Iterable[str]) -> str:
    """Returns sentences as one, each once."""
    return "; ".join(dict.fromkeys(each for each in reasons if each))
