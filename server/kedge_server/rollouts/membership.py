"""Which devices a rollout is for, and which not and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import delete
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, func, select

from kedge_server.database import exclusive
from kedge_server.devices.facts import COLUMNS, AnyDevice, facts_of, facts_of_device, tags_of
from kedge_server.devices.selectors import Facts, Selector, fields, matches, parse
from kedge_server.devices.tables import DeviceRow
from kedge_server.releases.tables import BuildRow
from kedge_server.rollouts.cohorts import Size, assign_stages, place
from kedge_server.rollouts.tables import DeploymentRow, RolloutRow
from kedge_shared import wire
from kedge_shared.manifest import Manifest, read_manifest
from kedge_shared.phases import TERMINAL, Phase
from kedge_shared.protocol import Verdict
from kedge_shared.resolver import resolve
from kedge_shared.rollouts import RolloutSpec

OPEN_ROLLOUTS = ("proposed", "running", "paused")
#: Boards that a rollout can reach.
SERVING = (col(DeviceRow.serves), col(DeviceRow.revoked).is_(None))


@dataclass
class Members:
    """Who is in a rollout.

    Attributes:
        classes: Device → class of those who get it.
        facts: Device → facts, of the same.
        skipped: Device → reason, of those who are selected and cannot get it.
        unselected: Device → reason, of all others.
        taken_over: Devices that a rollout of lower priority loses → that rollout.
    """

    classes: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Facts] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    unselected: dict[str, str] = field(default_factory=dict)
    taken_over: dict[str, str] = field(default_factory=dict)


def settle(session: Session) -> None:
    """Waits for whoever else decides who is in which rollout, until the transaction ends.

    Of a rollout that is made while a board joins, one must see the other; and of two rollouts that
    are made at once the later one must see which boards the first has. Taken first of all locks.
    """
    exclusive(session, "membership")


def salt(spec: RolloutSpec) -> str:
    """Returns what cohorts are drawn by: known beforehand, so that a dry run shows the draw."""
    return f"{spec.model} {spec.release}"


def members(session: Session, spec: RolloutSpec, builds: Mapping[str, BuildRow]) -> Members:
    """Returns who would get a release, and why the others would not."""
    manifests = {name: read_manifest(build.manifest) for name, build in builds.items()}
    wanted = parse(spec.selector) if spec.selector else None
    held = _held(session, spec.model)
    found = Members()
    fits: dict[tuple[str, str], str] = {}
    asked = _asks(spec)
    for device in session.execute(select_columns(*COLUMNS).where(*SERVING)):  # type: ignore[call-overload]
        facts = facts_of_device(device) if asked else {}
        why = _unselected(spec, wanted, device, facts)
        if why:
            found.unselected[device.id] = why
            continue
        kind = (device.device_class, device.facts)
        if kind not in fits:
            fits[kind] = _unfit(spec, device, manifests.get(device.device_class))
        why = fits[kind]
        holder = held.get(device.id)
        if not why and holder is not None and holder.priority >= spec.priority:
            why = f"rollout {holder.id} is {holder.state} on it, with priority {holder.priority}"
        if why:
            found.skipped[device.id] = why
            continue
        if holder is not None:
            found.taken_over[device.id] = holder.id
        found.classes[device.id], found.facts[device.id] = device.device_class, facts
    return found


def _asks(spec: RolloutSpec) -> bool:
    """Says whether anything is selected by facts; to gather a fleet's takes a second."""
    return bool(spec.selector or spec.order or any(each.selector for each in spec.stages))


def _unselected(spec: RolloutSpec, wanted: Selector | None, device: AnyDevice, facts: Facts) -> str:
    tags = tags_of(device.tags)
    for key, value in spec.tags.items():
        if tags.get(key) != value:
            return f"tag {key} is {tags.get(key, 'missing')}, not {value}"
    if wanted is not None and not matches(wanted, facts):
        return f"not selected by {spec.selector}"
    return ""


def _unfit(spec: RolloutSpec, device: AnyDevice, manifest: Manifest | None) -> str:
    if manifest is None:
        return f"{spec.release} has no build for {device.device_class}"
    fit = resolve(manifest, facts_of(device.facts))
    return "" if fit.fits else fit.reason


def _held(session: Session, model: str) -> dict[str, RolloutRow]:
    """Returns which open rollout of the model has a device."""
    query = (
        select(DeploymentRow.device, RolloutRow)
        .where(DeploymentRow.rollout == RolloutRow.id)
        .where(RolloutRow.model == model, col(RolloutRow.state).in_(OPEN_ROLLOUTS))
        .order_by(col(RolloutRow.priority))
    )
    return dict(session.exec(query).all())


def draw(spec: RolloutSpec, found: Members) -> dict[str, int]:
    """Returns device → stage."""
    order = [parse(each) for each in spec.order]
    risks = {
        device: next((at for at, each in enumerate(order) if matches(each, facts)), len(order))
        for device, facts in (found.facts.items() if order else ())
    }
    return assign_stages(salt(spec), found.classes, sizes(spec, found.facts), risks)


def sizes(spec: RolloutSpec, facts: Mapping[str, Facts]) -> list[Size]:
    """Returns the sizes of a rollout's stages."""
    made = []
    for stage in spec.stages:
        chosen = None
        if stage.selector:
            asked = parse(stage.selector)
            chosen = {device for device, each in facts.items() if matches(asked, each)}
        made.append(Size(stage.percent, stage.count, chosen))
    return made


def empty(spec: RolloutSpec, found: Members) -> list[int]:
    """Returns stages whose selector selects none of a rollout's boards: most likely misspelt."""
    return [
        index for index, size in enumerate(sizes(spec, found.facts))
        if size.members is not None and not size.members
    ]  # fmt: skip


def unknown_tags(session: Session, spec: RolloutSpec) -> list[str]:
    """Returns the tags that a rollout asks for and no board has."""
    asked = set(spec.tags)
    if spec.selector:
        asked |= {each.removeprefix("tag.") for each in fields(parse(spec.selector))
                  if each.startswith("tag.")}  # fmt: skip
    for tags in session.execute(select_columns(col(DeviceRow.tags)).distinct()).scalars():
        asked -= tags_of(tags).keys()
    return sorted(asked)


def takes(session: Session, spec: RolloutSpec, device: DeviceRow) -> bool:
    """Says whether a rollout is for a device that joins."""
    wanted = parse(spec.selector) if spec.selector else None
    build = session.get(BuildRow, (spec.model, spec.release, device.device_class))
    if build is None or _unselected(spec, wanted, device, facts_of_device(device)):
        return False
    return not _unfit(spec, device, read_manifest(build.manifest))


def stage_for(
    session: Session, rollout: RolloutRow, spec: RolloutSpec, device: DeviceRow
) -> int | None:
    """Returns the stage of a device that joins an open rollout; its class is one larger with it."""
    query = (
        select_columns(col(DeploymentRow.stage), func.count())
        .join(DeviceRow, col(DeviceRow.id) == col(DeploymentRow.device))
        .where(col(DeploymentRow.rollout) == rollout.id)
        .where(col(DeploymentRow.retried_by).is_(None))
        .where(col(DeviceRow.device_class) == device.device_class)
        .group_by(col(DeploymentRow.stage))
    )
    counts = [0] * len(spec.stages)
    for stage, count in session.execute(query):
        counts[stage] = count
    every = select_columns(func.count()).where(
        col(DeviceRow.device_class) == device.device_class, *SERVING
    )
    # Those beyond the last stage have no deployment; the newcomer itself is among the devices.
    beyond = int(session.execute(every).scalar_one()) - 1 - sum(counts)
    whole = spec.stages[-1].percent == 100
    counts.append(0 if whole else max(0, beyond))
    return place(device.id, counts, sizes(spec, {device.id: facts_of_device(device)}))


def supersede(
    session: Session, rollout: RolloutRow, taken_over: Mapping[str, str], now: float
) -> None:
    """Takes devices out of rollouts of lower priority: they count for neither side there."""
    verdict = Verdict(code="superseded", reason=f"rollout {rollout.id} has a higher priority")
    for device, holder in taken_over.items():
        _take_out(session, device, [holder], verdict, now)


def leave(session: Session, device: str, reason: str, now: float) -> None:
    """Takes a device out of every open rollout: its silence is nobody's failure.

    Args:
        session: Of the transaction.
        device: Which.
        reason: The sentence that operators read.
        now: Unix seconds.
    """
    query = select(RolloutRow.id).where(col(RolloutRow.state).in_(OPEN_ROLLOUTS))
    verdict = Verdict(code="superseded", reason=reason)
    _take_out(session, device, session.exec(query).all(), verdict, now)


def _take_out(
    session: Session, device: str, rollouts: Sequence[str], verdict: Verdict, now: float
) -> None:
    query = select(DeploymentRow).where(
        DeploymentRow.device == device, col(DeploymentRow.rollout).in_(rollouts)
    )
    for row in session.exec(query).all():
        if row.assigned is None:
            session.execute(delete(DeploymentRow).where(col(DeploymentRow.id) == row.id))
        elif Phase(row.phase) not in TERMINAL:
            row.phase, row.updated = Phase.REFUSED.value, now
            row.verdict = wire.encode(verdict).decode()
            session.add(row)
