"""Verdicts of shadow and probation, row by literal row."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from msgspec.structs import replace as replace_struct

from kedge_agent.evidence.heat import Heat
from kedge_agent.evidence.summary import Evidence, Proof
from kedge_agent.evidence.verdicts import Served, judge_probation, judge_shadow
from kedge_agent.patience import ProbationSettings
from kedge_shared.device_classes import Budgets
from kedge_shared.manifest import Shadow
from kedge_shared.phases import Event, Phase
from tests.shared import samples

MANIFEST = replace(samples.manifest(), budgets=Budgets(latency_ratio=1.5, latency_p95_ms=50))
POLICY = samples.policy()
PATIENCE = ProbationSettings(
    seconds=60, max_seconds=600, min_frames=100, error_share=0.05, harm_share=0.01
)
#: Capital of 100 and of 20, and a hair less.
HUNDRED, TWENTY, TEN = math.log(100) + 1e-9, math.log(20) + 1e-9, math.log(10) + 1e-9
SURE = Proof(safe=TWENTY, sighted=TWENTY)
WORSE = Proof(missing=HUNDRED, worse=TEN)


def evidence(proof: Proof = Proof(), **more: float) -> Evidence:
    figures = {"frames": 200, "objects": 200, "answered": 200, "tracks": 40, **more}
    return Evidence(proof=proof, **figures)  # type: ignore[arg-type]


def test_a_proof_of_health_says_how_much_it_saw_of_what_the_older_engine_sees() -> None:
    """A fleet's gate asks for the figure; without an older engine, or objects, there is none."""
    served = Served(500, 61)
    free = replace(MANIFEST, shadow=replace(MANIFEST.shadow, must_hold="nothing"))
    told = [
        judge_probation(found, SURE, manifest, POLICY, PATIENCE, served).verdict.evidence
        for found, manifest in (
            (evidence(SURE, missed=0.05), MANIFEST), (None, MANIFEST), (Evidence(), MANIFEST),
            (evidence(SURE, missed=0.05), free),
        )
    ]  # fmt: skip
    assert told[0]["agreement"] == pytest.approx(0.95)
    assert all("agreement" not in each for each in told[1:])


@pytest.mark.parametrize(
    ("found", "ended", "event"),
    [
        (Evidence(), False, None),
        (Evidence(), True, Event.UNDECIDED),
        (evidence(SURE), False, None),
        (evidence(SURE), True, Event.PASSED),
        (evidence(Proof(safe=TWENTY - 0.01, sighted=9)), True, Event.UNDECIDED),
        (evidence(Proof(safe=9, sighted=TWENTY - 0.01)), True, Event.UNDECIDED),
        (evidence(WORSE), False, Event.HARM),
        (evidence(Proof(missing=HUNDRED - 0.01, worse=9)), False, None),
        # As good an engine that disagrees more than was stated: worse must be shown, too.
        (evidence(Proof(missing=90, worse=TEN - 0.01)), False, None),
        (evidence(Proof(blind=HUNDRED)), False, Event.HARM),
        (evidence(Proof(blind=HUNDRED - 0.01)), False, None),
        (evidence(SURE, errors=1), False, Event.HARM),
        (evidence(answered=0), False, Event.HARM),
        (evidence(answered=1), False, None),
        (evidence(answered=0, objects=49), False, None),
        (evidence(answered=0, tracks=4), False, None),
        # Beside a niced thread everything is slow: preflight judges that.
        (evidence(SURE, new_ms=90.0, old_ms=10.0, new_p95_ms=90.0), True, Event.PASSED),
    ],
)
def test_shadow(found: Evidence, ended: bool, event: Event | None) -> None:
    ruling = judge_shadow(found, MANIFEST, PATIENCE, ended=ended)
    assert ruling.event is event
    if event is Event.HARM:
        assert (ruling.verdict.cause, ruling.verdict.stopped_in) == ("harm", Phase.SHADOW)
        assert ruling.verdict.reason


SLOW = {"new_p95_ms": 51.0}
SLOWER = evidence(SURE, new_p95_ms=51.0, new_ms=11.6, old_ms=10.0)
AS_SLOW = evidence(SURE, new_p95_ms=51.0, new_ms=11.4, old_ms=10.0)


@pytest.mark.parametrize(
    ("found", "before", "served", "event", "code"),
    [
        (evidence(SURE), Proof(), Served(500, 61), Event.HEALTHY, "ok"),
        (evidence(SURE), Proof(), Served(500, 59), None, "ok"),
        (evidence(SURE), Proof(), Served(99, 61), None, "ok"),
        # What the shadow won counts for health, what it lost too …
        (Evidence(), SURE, Served(500, 61), Event.HEALTHY, "ok"),
        (evidence(Proof(safe=2, sighted=2)), Proof(safe=1, sighted=1), Served(500, 61),
         Event.HEALTHY, "ok"),
        (evidence(SURE), Proof(safe=-0.1), Served(500, 61), None, "ok"),
        # … and excuses no harm.
        (evidence(WORSE), SURE, Served(500, 5), Event.HARM, "accuracy"),
        (evidence(Proof(blind=HUNDRED)), SURE, Served(500, 61), Event.HARM, "accuracy"),
        (Evidence(), WORSE, Served(500, 61), None, "ok"),
        (evidence(SURE, errors=1), SURE, Served(500, 61), Event.HARM, "crash"),
        (evidence(SURE, answered=0), SURE, Served(500, 61), Event.HARM, "accuracy"),
        # Slower by its pairs: harm; over its budget and slower: harm.
        (evidence(Proof(slow=HUNDRED)), SURE, Served(500, 5), Event.HARM, "latency"),
        (evidence(Proof(slow=HUNDRED - 0.01)), SURE, Served(500, 5), None, "ok"),
        (evidence(Proof(slow=HUNDRED)), SURE, Served(99, 5), None, "ok"),
        (SLOWER, SURE, Served(500, 5), Event.HARM, "latency"),
        (SLOWER, SURE, Served(99, 5), None, "ok"),
        # The shadow finds the caches warm: slow is what also is slower than the older one was in
        # service, by more than is allowed.
        (evidence(Proof(slow=HUNDRED), new_ms=6.5, old_ms=3.7, live_before_ms=6.2), SURE,
         Served(500, 5), None, "ok"),
        (evidence(Proof(slow=HUNDRED), new_ms=6.5, old_ms=3.7, live_before_ms=4.2), SURE,
         Served(500, 5), Event.HARM, "latency"),
        (replace_struct(SLOWER, live_before_ms=11.5), SURE, Served(500, 5), None, "ok"),
        (replace_struct(SLOWER, live_before_ms=10.0), SURE, Served(500, 5), Event.HARM, "latency"),
        # Equal engines' medians differ by some per cent on a shared board; that is no harm.
        (AS_SLOW, SURE, Served(500, 61), None, "ok"),
        (AS_SLOW, SURE, Served(500, 601), Event.UNDECIDED, "undecided"),
        # Too few paired frames to tell whose fault it is.
        (evidence(SURE, frames=59, **SLOW, new_ms=20, old_ms=10), SURE, Served(500, 61), None,
         "ok"),
        # A board that throttles is over any budget; the pairs alone are judged.
        (SLOWER, SURE, Served(500, 61, Heat(throttled=True)), None, "ok"),
        (evidence(Proof(slow=HUNDRED), **SLOW), SURE, Served(500, 61, Heat(throttled=True)),
         Event.HARM, "latency"),
        # A board too busy for evidence.
        (Evidence(), Proof(), Served(500, 599), None, "ok"),
        (Evidence(), Proof(), Served(500, 601), Event.UNDECIDED, "undecided"),
        # A first install: nothing to compare with, frames are the proof.
        (None, Proof(), Served(500, 61), Event.HEALTHY, "ok"),
        (None, Proof(), Served(0, 61), None, "ok"),
        (None, Proof(), Served(0, 601), Event.UNDECIDED, "undecided"),
    ],
)  # fmt: skip
def test_probation(
    found: Evidence | None, before: Proof, served: Served, event: Event | None, code: str
) -> None:
    ruling = judge_probation(found, before, MANIFEST, POLICY, PATIENCE, served)
    assert (ruling.event, ruling.verdict.code) == (event, code)
    if event is Event.UNDECIDED:
        assert ruling.verdict.cause == "undecided", "neither failure nor quarantine"


def test_the_reason_says_whose_fault_it_is() -> None:
    hot, late = Heat(throttled=True), 601
    throttled = judge_probation(SLOWER, SURE, MANIFEST, POLICY, PATIENCE, Served(500, late, hot))
    assert throttled.verdict.reason.endswith("51.0 ms a frame is over budget, on a board that "
                                             "throttles")  # fmt: skip
    busy = judge_probation(AS_SLOW, SURE, MANIFEST, POLICY, PATIENCE, Served(500, late))
    assert busy.verdict.reason.endswith("on a board that is busy")
    lost = evidence(WORSE, missed=0.125, gained=0.02, tracks=52)
    harm = judge_probation(lost, SURE, MANIFEST, POLICY, PATIENCE, Served(500, 9))
    assert harm.verdict.reason == (
        "misses 12% of what the older engine sees on live frames, and sees 2% that it does not: "
        "52 objects"
    )
    assert harm.verdict.evidence["won_missing"] == pytest.approx(2)


def test_what_is_not_to_be_compared_is_not() -> None:
    free = replace(MANIFEST, shadow=Shadow(must_hold="nothing"))
    found = evidence(Proof(missing=90, worse=90, blind=90))
    assert judge_shadow(found, free, PATIENCE, ended=True).event is Event.PASSED
    served = Served(500, 61)
    assert judge_probation(found, Proof(), free, POLICY, PATIENCE, served).event is Event.HEALTHY
    silent = evidence(answered=0)
    assert judge_probation(silent, Proof(), free, POLICY, PATIENCE, served).event is Event.HARM


def test_the_owners_may_have_undecided_engines_kept_or_watched_on() -> None:
    keep = replace(POLICY, on_undecided="confirm")
    ruling = judge_probation(Evidence(), Proof(), MANIFEST, keep, PATIENCE, Served(500, 601))
    assert (ruling.event, ruling.verdict.code) == (Event.HEALTHY, "undecided")
    silent = judge_probation(Evidence(), Proof(), MANIFEST, keep, PATIENCE, Served(0, 601))
    assert silent.event is Event.UNDECIDED, "an engine that answered nothing is never kept"
    longer = replace(POLICY, extend_seconds=3600)
    for seconds, event in ((601, None), (4199, None), (4201, Event.UNDECIDED)):
        served = Served(500, seconds)
        found = judge_probation(Evidence(), Proof(), MANIFEST, longer, PATIENCE, served)
        assert found.event is event


ALONE = Evidence(frames=200, answered=90, new_p95_ms=40, alone=True, seen_before=0.5)


@pytest.mark.parametrize(
    ("found", "seconds", "event", "said"),
    [
        (ALONE, 59, None, ""),
        (ALONE, 61, Event.HEALTHY, "served 500 frames"),
        (replace_struct(ALONE, errors=1), 1, Event.HARM, "failed on 1 live frames"),
        # Slow, and no other engine to tell whether it is the board: never confirmed.
        (replace_struct(ALONE, new_p95_ms=51), 61, None, ""),
        (replace_struct(ALONE, new_p95_ms=51), 601, Event.UNDECIDED, "over budget"),
        # Blind, or the scene is empty.
        (replace_struct(ALONE, answered=0), 61, None, ""),
        (replace_struct(ALONE, answered=0), 601, Event.UNDECIDED, "nothing is seen"),
        (replace_struct(ALONE, answered=0, seen_before=0.49), 61, Event.HEALTHY, "served"),
        (replace_struct(ALONE, answered=0, frames=49), 61, Event.HEALTHY, "served"),
        (replace_struct(ALONE, answered=1), 61, Event.HEALTHY, "served"),
    ],
)
def test_an_engine_that_memory_leaves_alone(
    found: Evidence, seconds: float, event: Event | None, said: str
) -> None:
    served = Served(500, seconds)
    ruling = judge_probation(found, Proof(), MANIFEST, POLICY, PATIENCE, served)
    assert ruling.event is event
    assert said in ruling.verdict.reason
