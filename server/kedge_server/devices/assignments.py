"""The director: what a device shall run, signed when it asks."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from securesystemslib.signer import CryptoSigner
from sqlmodel import Session, col, select

from kedge_server.devices.tables import AssignmentRow, DeviceRow
from kedge_server.errors import RequestError
from kedge_server.releases.tables import BuildRow
from kedge_server.rollouts.knowledge import window_of
from kedge_server.rollouts.tables import DeploymentRow, RolloutRow
from kedge_shared import signing
from kedge_shared.protocol import ASSIGNMENT_TYPE, Assignment, Intent, ManifestRef
from kedge_shared.trust import DirectorKey

WORKLOAD = "main"


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
    """

    def __init__(self, signers: Sequence[CryptoSigner], life_seconds: float) -> None:
        self._signers = {each.public_key.keyid: each for each in signers}
        self._signer, self._epoch, self._life = signers[0], 0, life_seconds

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

    def assign(self, session: Session, device: DeviceRow, seen: int = 0) -> AssignmentRow | None:
        """Returns a device's signed assignment, signing a new one if it must.

        The counter is stored before the assignment leaves, and is never below Unix time: a
        database restored from backup goes on above what devices have seen.

        Args:
            session: Of the poll.
            device: Who asks.
            seen: Newest counter the device has accepted.
        """
        deployment, intent = effective(self._claims(session, device.id))
        stored = session.get(AssignmentRow, device.id)
        if stored is None and deployment is None:
            return None
        wanted = deployment or ""
        now = int(time.time())
        if (
            stored is not None
            and (stored.deployment, stored.intent) == (wanted, intent)
            and stored.expires - now > self._life / 2
            and stored.counter >= seen
            and self._signed(stored)
        ):
            return stored
        counter = max((stored.counter if stored else 0) + 1, seen + 1, now)
        envelope = self._sign(session, device, deployment, intent, counter, now)
        self._told(session, deployment, now)
        row = stored or AssignmentRow(
            device=device.id, deployment="", intent="", counter=0, issued=0, expires=0, envelope=""
        )
        row.deployment, row.intent, row.counter = wanted, intent, counter
        row.issued, row.expires = now, now + int(self._life)
        row.envelope = json.dumps(envelope)
        session.add(row)
        return row

    def _signed(self, row: AssignmentRow) -> bool:
        """Says whether it bears the signature of the key that counts now."""
        signatures = json.loads(row.envelope)["signatures"]
        return any(each["keyid"] == self._signer.public_key.keyid for each in signatures)

    def _sign(
        self, session: Session, device: DeviceRow, deployment: str | None, intent: Intent,
        counter: int, now: int,
    ) -> dict[str, Any]:  # fmt: skip
        row = session.get(DeploymentRow, deployment) if deployment else None
        assignment = Assignment(
            device=device.id,
            device_key_id=device.key_id,
            workload=WORKLOAD,
            deployment=deployment or f"hold-{counter}",
            manifest=self._manifest(session, device, row) if row else None,
            intent=intent,
            rollout=row.rollout if row else "",
            stage=row.stage if row else 0,
            epoch=self._epoch,
            counter=counter,
            issued=now,
            expires=now + int(self._life),
            retry_of=row.retry_of if row else None,
            window=window_of(session, row.rollout) if row else None,
        )
        return signing.seal(assignment, ASSIGNMENT_TYPE, self._signer)

    @staticmethod
    def _told(session: Session, deployment: str | None, now: int) -> None:
        """Notes when a board first heard of a deployment: from then on its silence counts."""
        row = session.get(DeploymentRow, deployment) if deployment else None
        if row is not None and row.begun is None:
            row.begun = float(now)
            session.add(row)

    @staticmethod
    def _manifest(session: Session, device: DeviceRow, row: DeploymentRow) -> ManifestRef | None:
        build = session.get(BuildRow, (row.model, row.release, device.device_class))
        if build is None:
            return None
        return ManifestRef(
            path=build.manifest_path, sha256=build.manifest_sha256, length=build.manifest_length
        )

    @staticmethod
    def _claims(session: Session, device: str) -> list[Claim]:
        query = (
            select(DeploymentRow, RolloutRow)
            .where(DeploymentRow.rollout == RolloutRow.id)
            .where(DeploymentRow.device == device)
            .where(col(DeploymentRow.assigned).is_not(None))
            .where(col(DeploymentRow.retried_by).is_(None))
        )
        return [
            Claim(rollout.order or 0, rollout.state, deployment.id, rollout.recall)
            for deployment, rollout in session.exec(query)
        ]


def fresh_nonce() -> str:
    """Returns a nonce for a device's next signed request."""
    return secrets.token_urlsafe(12)
