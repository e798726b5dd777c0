"""A release that its owners took back: what that means for rollouts and for boards that run it."""

from __future__ import annotations

import time
from collections.abc import Container, Mapping

from sqlmodel import Session, col, select
from tuf.api.metadata import TargetFile

from kedge_server.artifacts.store import Store
from kedge_server.audit.service import record
from kedge_server.errors import ConflictError, RequestError
from kedge_server.releases.tables import BuildRow, ReleaseRow
from kedge_server.rollouts import service as rollouts
from kedge_server.rollouts.moves import move
from kedge_server.rollouts.stages import RolloutEvent
from kedge_server.rollouts.tables import RolloutRow
from kedge_shared.policy import POLICY_LIMIT_BYTES, ModelPolicy, policy_path, read_policy
from kedge_shared.rollouts import GateSpec, RolloutSpec, StageSpec

#: Boards leave a release that its owners took back; that some of them fail or are silent must not
#: take the others back to whatever stood before.
_GATE = GateSpec(max_failure_share=1.0)
Releases = dict[tuple[str, str], bool]


def withdraw(
    session: Session,
    store: Store,
    before: Container[str],
    listed: Mapping[str, TargetFile],
    who: str,
) -> None:
    """Halts every rollout of a release of which no build is listed any more, and moves its boards.

    Boards that run it move to the release that the model policy names; where it names none, they
    follow the newest rollout that stands, as after any halt.

    Args:
        session: Of the publication.
        store: Artifacts.
        before: Target paths that were listed until now.
        listed: Targets that are listed from now on.
        who: Publishes.
    """
    now, stood, stands = time.time(), _releases(session, before), _releases(session, listed)
    query = select(RolloutRow).where(col(RolloutRow.state) != "halted")
    for rollout in session.exec(query).all():
        if not stands.get((rollout.model, rollout.release), True):
            reason = f"{rollout.model} {rollout.release} was taken back by its owners"
            move(session, rollout, RolloutEvent.HALT, reason, who, now)
    for (model, release), standing in stands.items():
        if stood[model, release] and not standing:
            _fall_back(session, _policy(store, listed, model), release, stands, who)


def _releases(session: Session, listed: Container[str]) -> Releases:
    """Returns (model, release) → whether a build of it is listed."""
    found: Releases = {}
    for build in session.exec(select(BuildRow)):
        key = (build.model, build.release)
        found[key] = found.get(key, False) or build.manifest_path in listed
    return found


def _policy(store: Store, listed: Mapping[str, TargetFile], model: str) -> ModelPolicy | None:
    target = listed.get(policy_path(model))
    if target is None:
        return None
    return read_policy(store.read(target.hashes["sha256"], POLICY_LIMIT_BYTES))


def _fall_back(
    session: Session, policy: ModelPolicy | None, release: str, stands: Releases, who: str
) -> None:
    """Rolls the policy's fallback out to the boards that run a release that was taken back."""
    if policy is None or policy.fallback is None:
        return
    model, to = policy.model, policy.fallback
    row = session.get(ReleaseRow, (model, to))
    if row is None or not stands.get((model, to)):
        why = f"{model} {to}, the policy's fallback, is no release that stands"
    elif row.release_counter < policy.min_release_counter:
        why = f"{model} {to}, the policy's fallback, is below its own floor"
    else:
        spec = RolloutSpec(
            model=model, release=to, recall=True, selector=f"release=={release}",
            stages=(StageSpec(percent=100, gate=_GATE),),
        )  # fmt: skip
        try:
            made = rollouts.create(session, spec, who, time.time())
        except (ConflictError, RequestError) as error:
            why = str(error)
        else:
            why = f"boards that run {release} move to {to}: rollout {made.id}"
    record(session, who, "fallback", f"{model} {release}", why)


def require_listed(session: Session, listed: Container[str], model: str, release: str) -> None:
    """Makes sure that boards would accept a release.

    Raises:
        ConflictError: Its owners took it back.
    """
    query = select(BuildRow).where(BuildRow.model == model, BuildRow.release == release)
    found = session.exec(query).all()
    if found and not any(each.manifest_path in listed for each in found):
        raise ConflictError(
            f"{model} {release} was taken back by its owners", "`kedge publish` another release"
        )
