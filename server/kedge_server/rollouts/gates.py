"""Is a stage proven? Pure: facts in, verdict and the sentence an operator reads out.

Every device class is judged by itself: a build that is bad for one class cannot hide behind the
boards of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kedge_server.rollouts import trial
from kedge_server.rollouts.decision import Decision, named, soaking
from kedge_server.rollouts.facts import (
    DeploymentFacts,
    GateFacts,
    Standing,
    count,
    standing,
    tell_failure,
)
from kedge_shared.rollouts import GateSpec


def judge(gate: GateSpec, facts: GateFacts, now: float) -> Decision:
    """Judges a stage.

    Args:
        gate: What it must prove.
        facts: What is known of every device that was assigned so far, and of those that were not.
        now: Unix seconds.
    """
    if not facts.cohort:
        return Decision("pass", "no device in this stage")
    # Another rollout has them, or they were revoked: neither for nor against this release.
    cohort = tuple(each for each in facts.cohort if each.verdict.code != "superseded")
    if not cohort:
        return Decision("undecided", f"all {len(facts.cohort)} devices were taken out of it")
    facts = replace(facts, cohort=cohort)
    over = _over_limits(gate, facts.cohort, now)
    if over:
        return Decision("fail", over)
    if gate.sequential is not None:
        return trial.judge(gate, gate.sequential, facts, now)
    return _thresholds(gate, facts, now)


def _over_limits(gate: GateSpec, cohort: Sequence[DeploymentFacts], now: float) -> str:
    """Returns which hard limit is broken, or an empty string."""
    limits = gate.limits
    failed = count(cohort, gate, now)[Standing.FAILED]
    if limits.failed is not None and failed >= limits.failed:
        told = _first_failure(gate, cohort, now)
        return f"{failed} devices failed, the limit is {limits.failed}; {told}"
    for each in cohort:
        slow, faulty = each.latency_p95_ms, each.error_share
        if None not in (slow, limits.latency_p95_ms) and slow > limits.latency_p95_ms:  # type: ignore[operator]
            return f"{each.device}: p95 {slow:.1f} ms, the limit is {limits.latency_p95_ms:g} ms"
        if None not in (faulty, limits.error_share) and faulty > limits.error_share:  # type: ignore[operator]
            return (
                f"{each.device}: {faulty:.1%} of frames failed, {limits.error_share:.1%} is allowed"
            )
    return ""


def _thresholds(gate: GateSpec, facts: GateFacts, now: float) -> Decision:
    # Who bears every failure (a recall) does not want a class of silent boards to hold it up.
    classes = facts.classes() if gate.max_failure_share < 1 else {"": list(facts.cohort)}
    waiting = ""
    for device_class, members in classes.items():
        counts = count(members, gate, now)
        failed = counts[Standing.FAILED]
        if failed / len(members) > gate.max_failure_share:
            return Decision("fail", named(device_class, _why_failed(gate, members, now, failed),
                                          len(classes)))  # fmt: skip
        missing = _missing(gate, members, now)
        waiting = waiting or (missing and named(device_class, missing, len(classes)))
    if waiting:
        return Decision("undecided", waiting)
    counts = count(facts.cohort, gate, now)
    healthy, failed = counts[Standing.HEALTHY], counts[Standing.FAILED]
    since = max(each.confirmed or 0.0 for each in facts.cohort)
    early = soaking(healthy, since, gate.soak_seconds, now)
    if early:
        return Decision("undecided", early)
    lost = f"; {_first_failure(gate, facts.cohort, now)}" if failed else ""
    said = f"{healthy} of {len(facts.cohort)} devices healthy, {failed} failed{lost}"
    return Decision("pass", said)


def _missing(gate: GateSpec, members: Sequence[DeploymentFacts], now: float) -> str:
    """Returns what a class has not proven yet, or an empty string."""
    counts = count(members, gate, now)
    healthy, failed = counts[Standing.HEALTHY], counts[Standing.FAILED]
    # Those whose failure the gate bears are not waited for; but nobody's health proves nothing.
    needed = min(gate.min_healthy or max(1, len(members) - failed), len(members))
    if healthy >= needed:
        return ""
    said = f"{healthy} of {needed} devices have proven healthy, {failed} failed"
    if counts[Standing.UNDECIDED]:
        said += f", {counts[Standing.UNDECIDED]} could not decide"
    return said + (f"; {_first_failure(gate, members, now)}" if failed else "")


def _why_failed(gate: GateSpec, cohort: Sequence[DeploymentFacts], now: float, failed: int) -> str:
    return (
        f"{failed} of {len(cohort)} devices failed, {gate.max_failure_share:.0%} is allowed; "
        f"{_first_failure(gate, cohort, now)}"
    )


def _first_failure(gate: GateSpec, cohort: Sequence[DeploymentFacts], now: float) -> str:
    failed = (each for each in cohort if standing(each, gate, now) is Standing.FAILED)
    return tell_failure(next(failed), gate, now)
