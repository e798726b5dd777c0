"""The director: what devices shall run, signed when they ask."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from securesystemslib.signer import CryptoSigner
from sqlalchemy import Row, Table, select, update
from sqlmodel import Session, col

from kedge_server.database import exclusive, upsert
from kedge_server.database import now as clock_now
from kedge_server.devices.tables import AssignmentRow, DeviceRow
from kedge_server.errors import RequestError
from kedge_server.releases.tables import BuildRow
from kedge_server.rollouts.knowledge import window_of
from kedge_server.rollouts.tables import DeploymentRow, RolloutRow
from kedge_shared import signing
from kedge_shared.protocol import ASSIGNMENT_TYPE, Assignment, Intent, ManifestRef
from kedge_shared.trust import DirectorKey
from kedge_shared.windows import WindowSpec

WORKLOAD = "main"

_TABLE: Table = AssignmentRow.__table__  # type: ignore[attr-defined]
_CHANGED = ("deployment", "intent", "counter", "issued", "expires", "envelope")
#: A database takes only so many values in one question.
_AT_ONCE = 500


@dataclass(frozen=True)
class Claim:
    """A rollout's claim on a device.

    Attributes:
        order: Rollouts count up.
        state: Of the rollout.
        deployment: Identifier.
        recall: The rollout is a recall.
    """

    order: int
    state: str
    deployment: str
    recall: bool


@dataclass(frozen=True)
class Signed:
    """A signed assignment; fields as :class:`AssignmentRow`'s."""

    device: str
    deployment: str
    intent: str
    counter: int
    issued: int
    expires: int
    envelope: str

    @property
    def until(self) -> float:
        """Returns when it is signed anew, Unix seconds: when half of its life is over."""
        return self.issued + (self.expires - self.issued) / 2


@dataclass(frozen=True)
class _Wanted:
    """What a device shall be told next: its newest deployment, and what it was told last."""

    deployment: str | None
    intent: Intent
    counter: int


def effective(claims: Sequence[Claim]) -> tuple[str | None, Intent]:
    """Says which deployment a device follows. Pure.

    The newest rollout that was not halted. If a newer one was halted, the device goes back.

    Args:
        claims: Of rollouts that have reached the device.

    Returns:
        Deployment, or ``None`` if nothing is left to follow; and the intent.
    """
    ordered = sorted(claims, key=lambda each: -each.order)
    standing = [each for each in ordered if each.state != "halted"]
    if not standing:
        return None, "hold"
    back = standing[0].recall or ordered[0] is not standing[0]
    return standing[0].deployment, "revert" if back else "install"


class Director:
    """Signs assignments.

    Args:
        signers: Every director's key there is.
        life_seconds: How long an assignment may be taken up.
        holds_clones: A board that seems to be two holds what it has until a person cleared it.
    """

    def __init__(
        self, signers: Sequence[CryptoSigner], life_seconds: float, *, holds_clones: bool = True
    ) -> None:
        self._holds_clones = holds_clones
        self._signers = {each.public_key.keyid: each for each in signers}
        self._signer, self._epoch, self._life = signers[0], 0, life_seconds

    @property
    def held_keys(self) -> frozenset[str]:
        """Ids of the keys that this server could assign with."""
        return frozenset(self._signers)

    def adopt(self, named: DirectorKey) -> None:
        """Signs with the key that targets name from now on.

        Raises:
            RequestError: It is not among them.
        """
        signer = self._signers.get(str(named.key.get("keyid")))
        if signer is None:
            raise RequestError(
                "targets name a director's key that this server does not hold",
                "copy the new key into its online folder and restart it, then try again",
            )
        self._signer, self._epoch = signer, named.epoch

    def assign(self, session: Session, device: str) -> Signed | None:
        """Returns a device's signed assignment, or ``None`` before its first."""
        return self.assign_all(session, {device: 0})[device]

    def assign_all(self, session: Session, asked: Mapping[str, int]) -> dict[str, Signed | None]:
        """Returns devices' signed assignments, signing new ones where it must.

        The counter is stored before the assignment leaves, and is never below Unix time: a
        database restored from backup goes on above what devices have seen. Any server may sign:
        the devices are locked before what they shall run is read, so that of two servers the later
        one knows what the earlier one did, and everything that was decided before that.

        Args:
            session: Of the polls.
            asked: Device → newest counter that it has accepted.
        """
        found: dict[str, Signed | None] = {}
        names = sorted(asked)
        for at in range(0, len(names), _AT_ONCE):
            some = {each: asked[each] for each in names[at : at + _AT_ONCE]}
            settled, wanted = self._standing(session, some)
            found |= settled
            if wanted:
                lock_devices(session, wanted)
                settled, wanted = self._standing(session, {each: some[each] for each in wanted})
                found |= settled | self._renew(session, wanted, asked)
        return found

    def _standing(
        self, session: Session, asked: Mapping[str, int]
    ) -> tuple[dict[str, Signed | None], dict[str, _Wanted]]:
        """Returns what stands, and for the others what must be signed."""
        claims, now = claims_of(session, asked), time.time()
        held = _suspected(session, asked) if self._holds_clones else set()
        rows = session.execute(select(_TABLE).where(_TABLE.c.device.in_(asked)))
        stored = {each.device: Signed(**each._mapping) for each in rows}
        settled: dict[str, Signed | None] = {}
        wanted: dict[str, _Wanted] = {}
        for device, seen in asked.items():
            deployment, intent = effective([] if device in held else claims[device])
            last = stored.get(device)
            if last is None and deployment is None:
                settled[device] = None
            elif (
                last is not None
                and (last.deployment, last.intent) == (deployment or "", intent)
                and last.expires - now > self._life / 2
                and last.counter >= seen
                and self._signed(last)
            ):
                settled[device] = last
            else:
                wanted[device] = _Wanted(deployment, intent, last.counter if last else 0)
        return settled, wanted

    def _signed(self, row: Signed) -> bool:
        """Says whether it bears the signature of the key that counts now."""
        signatures = json.loads(row.envelope)["signatures"]
        return any(each["keyid"] == self._signer.public_key.keyid for each in signatures)

    def _renew(
        self, session: Session, wanted: Mapping[str, _Wanted], seen: Mapping[str, int]
    ) -> dict[str, Signed | None]:
        """Signs and stores; the devices are locked."""
        if not wanted:
            return {}
        now = int(clock_now(session))
        devices = _keyed(session, DeviceRow.id, _DEVICE, wanted)
        named = [each.deployment for each in wanted.values() if each.deployment]
        rows = _keyed(session, DeploymentRow.id, _DEPLOYMENT, named)
        builds = _builds(session, rows.values())
        rollouts = {each.rollout for each in rows.values()}
        windows = {each: window_of(session, each) for each in rollouts}
        signed = {}
        for device, each in wanted.items():
            row = rows[each.deployment] if each.deployment else None
            kind = devices[device].device_class
            build = builds.get((row.model, row.release, kind)) if row else None
            counter = max(each.counter + 1, seen[device] + 1, now)
            window = windows[row.rollout] if row else None
            signed[device] = self._sign(
                devices[device], row, build, window, each.intent, counter, now
            )
        upsert(session, _TABLE, [vars(each) for each in signed.values()], _CHANGED)
        _told(session, [each.id for each in rows.values() if each.begun is None], now)
        return dict(signed)

    def _sign(
        self, device: Row[Any], row: Row[Any] | None, build: ManifestRef | None,
        window: WindowSpec | None, intent: Intent, counter: int, now: int,
    ) -> Signed:  # fmt: skip
        assignment = Assignment(
            device=device.id,
            device_key_id=device.key_id,
            workload=WORKLOAD,
            deployment=row.id if row else f"hold-{counter}",
            manifest=build,
            intent=intent,
            rollout=row.rollout if row else "",
            stage=row.stage if row else 0,
            epoch=self._epoch,
            counter=counter,
            issued=now,
            expires=now + int(self._life),
            retry_of=row.retry_of if row else None,
            window=window,
        )
        envelope = signing.seal(assignment, ASSIGNMENT_TYPE, self._signer)
        return Signed(
            device=device.id, deployment=row.id if row else "", intent=intent, counter=counter,
            issued=now, expires=assignment.expires, envelope=json.dumps(envelope),
        )  # fmt: skip


_DEVICE = (DeviceRow.id, DeviceRow.key_id, DeviceRow.device_class)
_DEPLOYMENT = (
    DeploymentRow.id, DeploymentRow.rollout, DeploymentRow.stage, DeploymentRow.model,
    DeploymentRow.release, DeploymentRow.retry_of, DeploymentRow.begun,
)  # fmt: skip


def lock_devices(session: Session, devices: Iterable[str]) -> None:
    """Holds devices until the transaction ends, so that servers treat each one at a time."""
    if session.get_bind().dialect.name == "sqlite":
        exclusive(session, "devices")
        return
    # In one order everywhere, or two servers would wait for each other.
    query = select(col(DeviceRow.id)).where(col(DeviceRow.id).in_(sorted(devices)))
    session.execute(query.order_by(col(DeviceRow.id)).with_for_update(key_share=True)).all()


def claims_of(session: Session, devices: Collection[str]) -> dict[str, list[Claim]]:
    """Returns device → the rollouts that have reached it."""
    query = (
        select(col(DeploymentRow.device), col(DeploymentRow.id), col(RolloutRow.order),
               col(RolloutRow.state), col(RolloutRow.recall))
        .where(col(DeploymentRow.rollout) == col(RolloutRow.id))
        .where(col(DeploymentRow.device).in_(devices))
        .where(col(DeploymentRow.assigned).is_not(None))
        .where(col(DeploymentRow.retried_by).is_(None))
    )  # fmt: skip
    found: dict[str, list[Claim]] = defaultdict(list)
    for device, deployment, order, state, recall in session.execute(query):
        found[device].append(Claim(order or 0, state, deployment, recall))
    return found


def _suspected(session: Session, devices: Collection[str]) -> set[str]:
    query = select(col(DeviceRow.id)).where(
        col(DeviceRow.id).in_(devices), col(DeviceRow.suspected_clone).is_not(None)
    )
    return set(session.execute(query).scalars())


def _keyed(
    session: Session, key: Any, columns: Sequence[Any], names: Collection[str]
) -> dict[str, Row[Any]]:
    rows = session.execute(select(*columns).where(col(key).in_(names)))
    return {each.id: each for each in rows}


def _builds(session: Session, rows: Iterable[Row[Any]]) -> dict[tuple[str, str, str], ManifestRef]:
    """Returns the builds of the deployments' releases, by model, release and class."""
    found = {}
    for model, release in {(each.model, each.release) for each in rows}:
        query = select(
            col(BuildRow.device_class), col(BuildRow.manifest_path),
            col(BuildRow.manifest_sha256), col(BuildRow.manifest_length),
        ).where(col(BuildRow.model) == model, col(BuildRow.release) == release)  # fmt: skip
        for device_class, path, sha256, length in session.execute(query):
            ref = ManifestRef(path=path, sha256=sha256, length=length)
            found[model, release, device_class] = ref
    return found


def _told(session: Session, deployments: Sequence[str], now: int) -> None:
    """Notes when boards first heard of deployments: from then on their silence counts."""
    if not deployments:
        return
    session.execute(
        update(DeploymentRow)
        .where(col(DeploymentRow.id).in_(deployments), col(DeploymentRow.begun).is_(None))
        .values(begun=float(now))
        .execution_options(synchronize_session=False)
    )
