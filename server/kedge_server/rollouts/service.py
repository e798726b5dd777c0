"""What operators do with rollouts, and what they see of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from sqlalchemy import ColumnElement, insert
from sqlmodel import Session, col, select

from kedge_server.audit.service import record
from kedge_server.devices.tables import DeviceRow
from kedge_server.errors import ConflictError, MalformedError, NotFoundError
from kedge_server.events.kinds import ROLLOUT_CREATED
from kedge_server.events.service import emit
from kedge_server.releases.service import builds
from kedge_server.releases.tables import ReleaseRow
from kedge_server.rollouts import (
    approvals,
    evidence,
    knowledge,
    membership,
    moves,
    progress,
    reports,
    retries,
)
from kedge_server.rollouts import plan as plans
from kedge_server.rollouts.facts import DeploymentFacts, Standing, is_silent, standing
from kedge_server.rollouts.faults import faults
from kedge_server.rollouts.membership import Members
from kedge_server.rollouts.stages import RolloutEvent, StageEvent
from kedge_server.rollouts.tables import DEPLOYMENTS, DeploymentRow, RolloutRow, StageRow
from kedge_shared import wire
from kedge_shared.api import (
    DecisionInfo,
    DeploymentInfo,
    PlanInfo,
    RolloutInfo,
    RolloutSpec,
    StageInfo,
)
from kedge_shared.ids import fresh_id
from kedge_shared.phases import Phase


def create(session: Session, spec: RolloutSpec, who: str, now: float) -> RolloutInfo:
    """Starts a rollout: membership is drawn and stored, the first stage assigned.

    Raises:
        NotFoundError: There is no such release.
        MalformedError: The specification is faulty; every fault is named.
        ConflictError: No device can take it: they do not fit, or an open rollout of the same or a
            higher priority has them; or the release is older than what the fleet runs and the
            rollout is no recall.
    """
    membership.settle(session)
    found, stages = _drawn(session, spec)
    if not found.classes:
        why = next(iter(found.skipped.values()), "") or _nobody(session, spec)
        raise ConflictError(f"no device can take {spec.model} {spec.release}: {why}")
    for index in membership.empty(spec, found):
        raise ConflictError(
            f"stages[{index}].selector: {spec.stages[index].selector} selects none of its boards: "
            "the stage would pass at once", "mend the selector, or leave the stage out",
        )  # fmt: skip
    rollout = RolloutRow(
        id=fresh_id("ro"), model=spec.model, release=spec.release, recall=spec.recall,
        spec=wire.encode(spec).decode(), state="running", reason="started", created=now,
        skipped=json.dumps(found.skipped), priority=spec.priority, created_by=who,
    )  # fmt: skip
    if spec.two_person:
        rollout.state, rollout.reason = "proposed", "waits for two people's yes"
    session.add(rollout)
    session.flush()
    membership.supersede(session, rollout, found.taken_over, now)
    rows = [
        StageRow(rollout=rollout.id, index=index, percent=each.percent, state="waiting")
        for index, each in enumerate(spec.stages)
    ]
    session.add_all(rows)
    session.flush()
    session.execute(
        insert(DEPLOYMENTS),
        [reports.deployment_values(rollout, device, stage, now)
         for device, stage in stages.items()],
    )  # fmt: skip
    detail = f"{spec.model} {spec.release} to {len(stages)} devices"
    record(session, who, "rollout create", rollout.id, detail)
    data = {"model": spec.model, "release": spec.release, "recall": spec.recall, "who": who,
            "devices": len(stages)}  # fmt: skip
    emit(session, ROLLOUT_CREATED, rollout.id, data, now)
    if not spec.two_person:
        progress.begin_stage(session, rollout, spec, rows[0], now)
    return info(session, rollout, now)


def plan(session: Session, spec: RolloutSpec) -> PlanInfo:
    """Says what a rollout would do, and changes nothing.

    Raises:
        NotFoundError: There is no such release.
        MalformedError: The specification is faulty.
        ConflictError: The release is older than what the fleet runs and the rollout is no recall.
    """
    found, stages = _drawn(session, spec)
    left = {**found.unselected, **found.skipped}
    return plans.plan(spec, found.classes, stages, left, membership.empty(spec, found))


def _drawn(session: Session, spec: RolloutSpec) -> tuple[Members, dict[str, int]]:
    wrong = faults(spec)
    if wrong:
        raise MalformedError("; ".join(wrong), "see docs/rollouts.md")
    found = builds(session, spec.model, spec.release)
    _check_order(session, spec)
    who = membership.members(session, spec, found)
    return who, membership.draw(spec, who)


def _nobody(session: Session, spec: RolloutSpec) -> str:
    if session.exec(select(DeviceRow)).first() is None:
        return "no device is enrolled"
    unknown = membership.unknown_tags(session, spec)
    told = f", and none has a tag {' or '.join(unknown)}" if unknown else ""
    wanted = spec.selector or spec.tags
    if not wanted:
        return "every device is revoked or only measures (`kedge device list`)"
    return f"no device is selected by {wanted}{told}"


def _check_order(session: Session, spec: RolloutSpec) -> None:
    newest = session.exec(
        select(RolloutRow)
        .where(RolloutRow.model == spec.model, RolloutRow.state == "completed")
        .order_by(col(RolloutRow.order).desc())
    ).first()
    if newest is None or spec.recall:
        return
    wanted = session.get(ReleaseRow, (spec.model, spec.release))
    running = session.get(ReleaseRow, (spec.model, newest.release))
    if wanted and running and wanted.release_counter < running.release_counter:
        raise ConflictError(
            f"{spec.release} is older than {newest.release}, which the fleet runs",
            f"`kedge rollout recall {spec.model} {spec.release}` goes back",
        )


def change(
    session: Session, rollout_id: str, event: RolloutEvent, who: str, now: float
) -> RolloutInfo:
    """Pauses, resumes or halts.

    Raises:
        NotFoundError: There is no such rollout.
        ConflictError: Not from where it stands.
    """
    rollout = find(session, rollout_id)
    if not moves.move(session, rollout, event, f"{event.value} by {who}", who, now):
        raise ConflictError(f"rollout {rollout_id} is {rollout.state}: cannot {event.value}")
    progress.reopen(session, rollout, now)
    return info(session, rollout, now)


def approve(session: Session, rollout_id: str, who: str, now: float) -> RolloutInfo:
    """Says yes for a stage that asks, or for the start of a rollout that wants two people's.

    Raises:
        NotFoundError: There is no such rollout.
        ConflictError: It does not ask, or is not running.
        ForbiddenError: It wants other people's yes than its creator's.
    """
    rollout = find(session, rollout_id)
    stages, spec = knowledge.stages_of(session, rollout.id), knowledge.spec_of(rollout)
    if rollout.state == "proposed":
        said = approvals.add(session, rollout, approvals.START, who, now)
        why = f"started: {' and '.join(said)} said yes"
        if len(said) >= approvals.WANTED and moves.move(
            session, rollout, RolloutEvent.START, why, who, now
        ):
            progress.begin_stage(session, rollout, spec, stages[0], now)
        return info(session, rollout, now)
    current = next((each for each in stages if each.state == "asking"), None)
    if rollout.state != "running" or current is None:
        raise ConflictError(f"rollout {rollout_id} is {rollout.state} and asks for nothing")
    if not moves.hold(session, rollout):
        raise ConflictError(f"rollout {rollout_id} is {rollout.state} and asks for nothing")
    if spec.two_person:
        said = approvals.add(session, rollout, current.index, who, now)
        if len(said) < approvals.WANTED:
            return info(session, rollout, now)
        who = " and ".join(said)
    if not moves.move_stage(session, current, StageEvent.APPROVE, now, who):
        raise ConflictError(f"rollout {rollout_id} has moved on", "look at it again")
    title = spec.stages[current.index].title
    why = f"stage {title} approved by {who}: {current.reason}"
    progress.go_on(session, rollout, stages, current, why, who, now)
    return info(session, rollout, now)


def retry(session: Session, rollout_id: str, who: str, now: float) -> RolloutInfo:
    """Gives every board that failed or could not decide the release again, despite quarantine.

    Raises:
        NotFoundError: There is no such rollout.
        ConflictError: It is over, or no board failed.
    """
    rollout = find(session, rollout_id)
    if rollout.state not in membership.OPEN_ROLLOUTS:
        raise ConflictError(f"rollout {rollout_id} is {rollout.state}: nothing is tried again")
    gate = knowledge.spec_of(rollout).stages[0].gate
    count = retries.again(session, retries.failed(session, rollout, gate, now), now)
    if not count:
        raise ConflictError(f"no board of rollout {rollout_id} has failed")
    record(session, who, "rollout retry", rollout.id, f"{count} devices")
    return info(session, rollout, now)


def replay(session: Session, rollout_id: str) -> list[DecisionInfo]:
    """Judges every stored decision of a rollout again from its evidence.

    Raises:
        NotFoundError: There is no such rollout.
    """
    return evidence.replay(session, find(session, rollout_id).id)


def find(session: Session, rollout: str) -> RolloutRow:
    """Returns a rollout.

    Raises:
        NotFoundError: There is none.
    """
    row = knowledge.find_row(session, rollout)
    if row is None:
        raise NotFoundError(f"there is no rollout {rollout}", "`kedge rollout list`")
    return row


def all_rollouts(session: Session, now: float, *which: ColumnElement[bool]) -> list[RolloutInfo]:
    """Returns rollouts that fulfil every condition, newest first."""
    query = select(RolloutRow).where(*which).order_by(col(RolloutRow.order).desc())
    return [info(session, row, now) for row in session.exec(query).all()]


def deployments(
    session: Session, *, rollout: str = "", device: str = "", now: float | None = None
) -> list[DeploymentInfo]:
    """Returns deployments that were assigned, newest first."""
    import time

    query = select(DeploymentRow).where(col(DeploymentRow.assigned).is_not(None))
    if rollout:
        query = query.where(DeploymentRow.rollout == rollout)
    if device:
        query = query.where(DeploymentRow.device == device)
    rows = session.exec(query.order_by(col(DeploymentRow.assigned).desc())).all()
    return [_deployment(session, row, now or time.time()) for row in rows]


def _deployment(session: Session, row: DeploymentRow, now: float) -> DeploymentInfo:
    rollout = find(session, row.rollout)
    gate = knowledge.spec_of(rollout).stages[row.stage].gate
    facts = knowledge.facts_from(row)
    silent = is_silent(facts, gate, rollout.finished or now)
    return DeploymentInfo(
        id=row.id, rollout=row.rollout, device=row.device, stage=row.stage, release=row.release,
        phase=Phase(row.phase), verdict=facts.verdict, silent=silent, assigned=facts.assigned,
        updated=row.updated,
    )  # fmt: skip


def info(session: Session, rollout: RolloutRow, now: float) -> RolloutInfo:
    """Returns what operators see of a rollout."""
    known = knowledge.standings_of(session, rollout.id)
    spec = knowledge.spec_of(rollout)
    stages = knowledge.stages_of(session, rollout.id)
    state: object = rollout.state
    return RolloutInfo(
        id=rollout.id, model=rollout.model, release=rollout.release,
        state=state,  # type: ignore[arg-type]
        recall=rollout.recall, reason=rollout.reason, created=rollout.created,
        finished=rollout.finished, created_by=rollout.created_by,
        approvals=_said_yes(session, rollout, spec, stages),
        stages=tuple(_stage(each, known, spec, now) for each in stages),
    )  # fmt: skip


def _said_yes(
    session: Session, rollout: RolloutRow, spec: RolloutSpec, stages: Sequence[StageRow]
) -> tuple[str, ...]:
    asking = next((each.index for each in stages if each.state == "asking"), approvals.START)
    wants = spec.two_person and (rollout.state == "proposed" or asking != approvals.START)
    return approvals.people(session, rollout.id, asking) if wants else ()


def _stage(
    stage: StageRow, known: tuple[Sequence[tuple[DeploymentFacts, int]], Mapping[int, int]],
    spec: RolloutSpec, now: float,
) -> StageInfo:  # fmt: skip
    reached, waiting = known
    gate, at = spec.stages[stage.index].gate, stage.finished or now
    counts = dict.fromkeys(Standing, 0)
    for each, devices in reached:
        if each.stage <= stage.index:
            counts[standing(each, gate, at)] += devices
    counts[Standing.PENDING] += sum(
        count for index, count in waiting.items() if index <= stage.index
    )
    state: object = stage.state
    verdict: object = stage.verdict
    return StageInfo(
        index=stage.index, percent=stage.percent, title=spec.stages[stage.index].title,
        state=state,  # type: ignore[arg-type]
        devices=sum(counts.values()), healthy=counts[Standing.HEALTHY],
        failed=counts[Standing.FAILED],
        undecided=counts[Standing.UNDECIDED], pending=counts[Standing.PENDING],
        verdict=verdict,  # type: ignore[arg-type]
        reason=stage.reason,
    )  # fmt: skip
