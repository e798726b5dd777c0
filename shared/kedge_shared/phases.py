"""Phases of a deployment on a board: the machine is the table, nothing else.

A phase is saved *before* the step it names is begun. ``RESUME`` says where to stand after a crash
in that phase; it is total, so there is no phase that a power cut leaves without an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType


class Phase(str, Enum):
    """Where a deployment stands."""

    IDLE = "idle"  # assigned, nothing done yet; or nothing to do
    DOWNLOADING = "downloading"  # fetching manifest, policy, files, golden frames
    VERIFYING = "verifying"  # hashes, fit, admission
    PREFLIGHT = "preflight"  # trial in a child, off the live path
    SHADOW = "shadow"  # candidate runs on sampled live frames, active serves
    ARMED = "armed"  # everything is proven, waits for the swap (window, operator)
    SWAPPING = "swapping"  # the pointer is being switched
    PROBATION = "probation"  # candidate serves, old engine ready and run as reverse shadow
    CONFIRMED = "confirmed"  # proof of health on this board
    ROLLING_BACK = "rolling_back"  # the old engine is taking over again
    ROLLED_BACK = "rolled_back"  # old engine serves: harm, undecided or environment
    REFUSED = "refused"  # never came near the live path


class Event(str, Enum):
    """What moves a deployment on."""

    ASSIGNED = "assigned"  # a newer assignment was accepted
    FETCHED = "fetched"  # every byte is here
    VERIFIED = "verified"  # every byte is what was signed, and fits
    PASSED = "passed"  # the trial at hand (preflight, shadow) holds
    SWAP = "swap"  # go
    SWAPPED = "swapped"  # the new engine answered its first live frame
    HEALTHY = "healthy"  # probation held
    HARM = "harm"  # slower, worse, crashing: proven
    UNDECIDED = "undecided"  # too little evidence by the deadline
    ENVIRONMENT = "environment"  # disk, memory, a dead runner: not the engine's fault
    RESTORED = "restored"  # the old engine answers again
    REJECTED = "rejected"  # trust, fit, budget: never loaded on the live path


class Cause(str, Enum):
    """Why a deployment was rolled back or refused. Only ``harm`` quarantines."""

    HARM = "harm"
    UNDECIDED = "undecided"
    ENVIRONMENT = "environment"


TERMINAL = frozenset({Phase.CONFIRMED, Phase.ROLLED_BACK, Phase.REFUSED})
#: The release did not stay: the board runs what it ran before.
BACK = TERMINAL - {Phase.CONFIRMED}

#: Phases in which the live loop may be affected by the deployment.
LIVE = frozenset({Phase.SHADOW, Phase.SWAPPING, Phase.PROBATION, Phase.ROLLING_BACK})

_BEFORE_SWAP = {Event.ENVIRONMENT: Phase.REFUSED, Event.REJECTED: Phase.REFUSED}

_TABLE: dict[Phase, dict[Event, Phase]] = {
    Phase.IDLE: {Event.ASSIGNED: Phase.DOWNLOADING, Event.REJECTED: Phase.REFUSED},
    Phase.DOWNLOADING: {Event.FETCHED: Phase.VERIFYING, **_BEFORE_SWAP},
    Phase.VERIFYING: {Event.VERIFIED: Phase.PREFLIGHT, **_BEFORE_SWAP},
    Phase.PREFLIGHT: {
        Event.PASSED: Phase.SHADOW,
        Event.HARM: Phase.REFUSED,
        Event.UNDECIDED: Phase.REFUSED,
        **_BEFORE_SWAP,
    },
    Phase.SHADOW: {
        Event.PASSED: Phase.ARMED,
        Event.HARM: Phase.REFUSED,
        Event.UNDECIDED: Phase.ARMED,  # nothing seen, nothing held against it: probation decides
        **_BEFORE_SWAP,
    },
    Phase.ARMED: {Event.SWAP: Phase.SWAPPING, **_BEFORE_SWAP},
    Phase.SWAPPING: {
        Event.SWAPPED: Phase.PROBATION,
        Event.HARM: Phase.ROLLING_BACK,
        Event.ENVIRONMENT: Phase.ROLLING_BACK,
    },
    Phase.PROBATION: {
        Event.HEALTHY: Phase.CONFIRMED,
        Event.HARM: Phase.ROLLING_BACK,
        Event.UNDECIDED: Phase.ROLLING_BACK,
        Event.ENVIRONMENT: Phase.ROLLING_BACK,
    },
    Phase.ROLLING_BACK: {Event.RESTORED: Phase.ROLLED_BACK},
    Phase.CONFIRMED: {Event.ASSIGNED: Phase.DOWNLOADING, Event.HARM: Phase.ROLLING_BACK},
    Phase.ROLLED_BACK: {Event.ASSIGNED: Phase.DOWNLOADING},
    Phase.REFUSED: {Event.ASSIGNED: Phase.DOWNLOADING},
}

TRANSITIONS: Mapping[tuple[Phase, Event], Phase] = MappingProxyType(
    {(phase, event): after for phase, row in _TABLE.items() for event, after in row.items()}
)

#: Where to stand after a crash or power cut in a phase. Steps that only read or fetch are taken
#: again; a swap that was not acknowledged is undone; a probation goes on (the crash loop counter
#: decides beside it, kedge_agent.decisions).
RESUME: Mapping[Phase, Phase] = MappingProxyType(
    {
        Phase.IDLE: Phase.IDLE,
        Phase.DOWNLOADING: Phase.DOWNLOADING,
        Phase.VERIFYING: Phase.VERIFYING,
        Phase.PREFLIGHT: Phase.VERIFYING,
        Phase.SHADOW: Phase.VERIFYING,
        Phase.ARMED: Phase.VERIFYING,
        Phase.SWAPPING: Phase.ROLLING_BACK,
        Phase.PROBATION: Phase.PROBATION,
        Phase.CONFIRMED: Phase.CONFIRMED,
        Phase.ROLLING_BACK: Phase.ROLLING_BACK,
        Phase.ROLLED_BACK: Phase.ROLLED_BACK,
        Phase.REFUSED: Phase.REFUSED,
    }
)


def advance(phase: Phase, event: Event) -> Phase:
    """Returns the phase after ``event``.

    Raises:
        ValueError: The table has no such step: a bug of the caller.
    """
    try:
        return TRANSITIONS[phase, event]
    except KeyError:
        raise ValueError(f"no step from {phase.value} on {event.value}") from None
