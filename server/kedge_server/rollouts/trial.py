"""A stage judged by tests that may be looked at at any time. Pure.

The chance of halting a good release is shared: over stages, and within a stage over classes and
measures (Bonferroni), with one test more for all classes of a stage together, where the product of
their e-processes is one again: a release that is a little bad everywhere shows there first. A
stage that was passed is looked at again with every later one, so a late rollback reopens it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from kedge_server.rollouts import sequential
from kedge_server.rollouts.decision import FLEET, Decision, Finding, joined, named, soaking
from kedge_server.rollouts.facts import (
    ControlFacts,
    DeploymentFacts,
    GateFacts,
    Standing,
    by_class,
    is_absent,
    standing,
    tell_failure,
)
from kedge_server.rollouts.sequential import Walk
from kedge_shared.rollouts import GateSpec, SequentialSpec


@dataclass(frozen=True)
class _Court:
    """What every test of a stage is held to."""

    gate: GateSpec
    spec: SequentialSpec
    now: float
    halts_at: float
    passes_at: float


@dataclass(frozen=True)
class _Case:
    """One measure of one class, walked over."""

    device_class: str
    members: Sequence[DeploymentFacts]
    walk: Walk
    exhausted: bool


def judge(gate: GateSpec, spec: SequentialSpec, facts: GateFacts, now: float) -> Decision:
    """Judges a stage and looks at the earlier ones again.

    Args:
        gate: For soak and silence.
        spec: The test.
        facts: Of the rollout.
        now: Unix seconds.
    """
    *earlier, current = facts.pools
    for pool in earlier:
        for each in _findings(gate, spec, facts, pool, now, failures_only=True):
            if each.verdict == "fail":
                return Decision("fail", f"reopened: {each.reason}", findings=(each,))
    members = [each for each in facts.cohort if each.stage in current]
    if not members:
        return Decision("pass", "no device in this stage")
    findings = _findings(gate, spec, facts, current, now)
    failed = [each for each in findings if each.verdict == "fail"]
    if failed:
        return Decision("fail", joined(each.reason for each in failed), findings=findings)
    asked = [each for each in findings if each.device_class != FLEET]
    return _settle(gate, spec, asked, members, findings, now)


def _settle(
    gate: GateSpec, spec: SequentialSpec, asked: Sequence[Finding],
    members: Sequence[DeploymentFacts], findings: tuple[Finding, ...], now: float,
) -> Decision:  # fmt: skip
    open_ones = [each for each in asked if each.verdict == "undecided"]
    healthy = [each for each in members if standing(each, gate, now) is Standing.HEALTHY]
    if any(not each.exhausted for each in open_ones):
        waited = joined(each.reason for each in open_ones if not each.exhausted)
        return Decision("undecided", waited, findings=findings)
    # A case that is closed for want of devices soaks over all of them.
    since = max((each.confirmed or 0.0 for each in healthy), default=0.0) if open_ones else max(
        (each.since or 0.0 for each in asked), default=0.0
    )  # fmt: skip
    early = soaking(len(healthy), since, gate.soak_seconds, now)
    if early:
        return Decision("undecided", early, findings=findings)
    if open_ones:
        # It would have halted, were the chance of error not shared with tests that say nothing.
        doubt = sequential.halt_bound(spec.alpha)
        doubtful = any(each.leaning >= doubt for each in findings)
        said = joined(each.reason for each in open_ones)
        return Decision("undecided", said, exhausted=True, doubtful=doubtful, findings=findings)
    return Decision("pass", joined(each.reason for each in asked), findings=findings)


def _findings(
    gate: GateSpec, spec: SequentialSpec, facts: GateFacts, pool: Sequence[int], now: float,
    *, failures_only: bool = False,
) -> tuple[Finding, ...]:  # fmt: skip
    members = [each for each in facts.cohort if each.stage in pool]
    classes = by_class(members)
    measures = 1 + (spec.latency_ratio is not None) + (spec.min_agreement is not None)
    tests = len(classes) * measures + (len(classes) > 1)
    court = _Court(
        gate, spec, now,
        halts_at=sequential.halt_bound(spec.alpha / (facts.stages * max(1, tests))),
        passes_at=sequential.pass_bound(spec.alpha, spec.beta),
    )  # fmt: skip
    found = [_failures(court, name, each, len(classes)) for name, each in classes.items()]
    if len(classes) > 1:
        found.append(_failures(court, FLEET, members, 1))
    if failures_only:
        return tuple(found)
    controls = _controls(facts.controls)
    for name, each in classes.items():
        if spec.latency_ratio is not None:
            found.append(_latency(court, name, each, controls.get(name, []), len(classes)))
        if spec.min_agreement is not None:
            found.append(_agreement(court, name, each, len(classes)))
    return tuple(found)


def _failures(
    court: _Court, device_class: str, members: Sequence[DeploymentFacts], classes: int
) -> Finding:
    gate, spec, now = court.gate, court.spec, court.now
    held = {each.device: standing(each, gate, now) for each in members}
    walked = [each for each in _ordered(members) if held[each.device] is not Standing.UNDECIDED]
    known = {Standing.FAILED: True, Standing.HEALTHY: False}
    walk = sequential.failures(
        (known.get(held[each.device]) for each in walked),
        spec.good_share, spec.bad_share, proof=court.passes_at,
    )  # fmt: skip
    waiting = any(
        held[each.device] is Standing.PENDING and not is_absent(each, gate, now) for each in members
    )
    counts = [sum(1 for each in held.values() if each is wanted) for wanted in Standing]
    healthy, failed, unsure, pending = counts
    said = f"{healthy} healthy, {failed} failed, {pending} pending"
    said += f", {unsure} could not decide" if unsure else ""
    good, bad = f"{spec.good_share:.0%}", f"{spec.bad_share:.0%}"
    first = next((each for each in walked if held[each.device] is Standing.FAILED), None)
    told = f"; {tell_failure(first, gate, now)}" if first else ""
    needed = sequential.clean_needed(spec.good_share, spec.bad_share, spec.alpha, spec.beta)
    sentences = {
        "fail": f"{said}: more than {good} fail{told}",
        "pass": f"{said}: fewer than {bad} fail{told}",
        "undecided": f"{said}; {needed} clean devices tell {good} from {bad}{told}",
        "exhausted": f"{said}, none to come: too few to tell {good} from {bad}, "
        f"{needed} clean ones would{told}",
    }
    case = _Case(device_class, walked, walk, not waiting)
    return _finding(court, "failures", case, sentences, classes)


def _latency(
    court: _Court, device_class: str, members: Sequence[DeploymentFacts],
    controls: Sequence[ControlFacts], classes: int,
) -> Finding:  # fmt: skip
    ratio = court.spec.latency_ratio or 1.0
    healthy = _healthy(court, members)
    treated = [each for each in healthy if each.change is not None]
    pairs = list(zip(treated, controls, strict=False))
    worse = [(each.change or 0.0) > control.change * ratio for each, control in pairs]
    walk = sequential.signs(worse, proof=court.passes_at)
    awaited = _awaited(court, members, lambda each: each.change is not None)
    said = f"p95 grew by more than {ratio - 1:.0%} on {sum(worse)} of {len(worse)} boards, each "
    said += "against one that was not reached"
    sentences = {
        "fail": f"slower: {said}",
        "pass": "",
        "undecided": f"{said}; not enough yet",
        "exhausted": f"{said}; too few to tell",
    }
    case = _Case(device_class, treated, walk, len(controls) <= len(pairs) or not awaited)
    finding = _finding(court, "latency", case, sentences, classes)
    # With nobody left to compare with, the boards' own probation is what guards the frame time.
    if finding.verdict == "undecided" and not _could_pass(court, len(controls)):
        return _idle(finding, named(device_class, "no board left to compare frame times with",
                                    classes))  # fmt: skip
    return finding


def _agreement(
    court: _Court, device_class: str, members: Sequence[DeploymentFacts], classes: int
) -> Finding:
    floor = court.spec.min_agreement or 0.0
    seen = [each for each in _healthy(court, members) if each.agreement is not None]
    worse = [(each.agreement or 0.0) < floor for each in seen]
    walk = sequential.signs(worse, proof=court.passes_at)
    awaited = _awaited(court, members, lambda each: each.agreement is not None)
    said = f"{sum(worse)} of {len(worse)} boards see less than {floor:.0%} of what they saw"
    sentences = {
        "fail": said,
        "pass": "",
        "undecided": f"{said}; not enough yet",
        "exhausted": f"{said}; too few to tell",
    }
    return _finding(
        court, "agreement", _Case(device_class, seen, walk, not awaited), sentences, classes
    )


def _finding(
    court: _Court, measure: str, case: _Case, sentences: Mapping[str, str], classes: int
) -> Finding:
    walk, verdict = case.walk, "undecided"
    since = None
    if walk.against >= court.halts_at:
        verdict = "fail"
    elif walk.proven_at is not None:
        verdict = "pass"
        since = max(each.confirmed or 0.0 for each in case.members[: walk.proven_at])
    exhausted = verdict == "undecided" and case.exhausted
    said = sentences["exhausted" if exhausted else verdict]
    return Finding(
        device_class=case.device_class, measure=measure, verdict=verdict,  # type: ignore[arg-type]
        against=walk.against, leaning=walk.leaning, halts_at=court.halts_at, for_it=walk.for_it,
        passes_at=court.passes_at, seen=walk.seen, exhausted=exhausted, since=since,
        reason=named(case.device_class, said, classes) if said else "",
    )  # fmt: skip


def _idle(finding: Finding, reason: str) -> Finding:
    return replace(finding, verdict="idle", exhausted=False, reason=reason)


def _could_pass(court: _Court, most: int) -> bool:
    walk = sequential.signs([False] * min(most, 100), proof=court.passes_at)
    return walk.proven_at is not None


def _ordered(members: Sequence[DeploymentFacts]) -> list[DeploymentFacts]:
    """Returns those who took the release up, in that order; a tie is broken by the name."""
    took = [(each.took_up, each.device, each) for each in members if each.took_up is not None]
    return [each for _, _, each in sorted(took, key=lambda row: row[:2])]


def _healthy(court: _Court, members: Sequence[DeploymentFacts]) -> list[DeploymentFacts]:
    return [
        each for each in _ordered(members)
        if standing(each, court.gate, court.now) is Standing.HEALTHY
    ]  # fmt: skip


def _awaited(
    court: _Court, members: Sequence[DeploymentFacts], has: Callable[[DeploymentFacts], bool]
) -> bool:
    """Says whether a figure may still come: of a board at work, or of one that is newly healthy."""
    for each in members:
        held = standing(each, court.gate, court.now)
        if held is Standing.PENDING and not is_absent(each, court.gate, court.now):
            return True
        fresh = court.now - (each.confirmed or 0.0) <= court.gate.silence_seconds
        if held is Standing.HEALTHY and not has(each) and fresh:
            return True
    return False


def _controls(controls: Sequence[ControlFacts]) -> dict[str, list[ControlFacts]]:
    """Returns controls by class, in an order that has nothing to do with what they measure."""
    found: dict[str, list[ControlFacts]] = {}
    for each in sorted(controls, key=lambda one: hashlib.sha256(one.device.encode()).digest()):
        found.setdefault(each.device_class, []).append(each)
    return found
