"""What people do with rollouts, each in one transaction: behind the API and the console alike."""

from __future__ import annotations

from dataclasses import replace

from sqlmodel import Session, select

from kedge_server.accounts.principal import Principal, Reach
from kedge_server.context import Context
from kedge_server.database import now, transaction
from kedge_server.devices import sieve
from kedge_server.devices.selectors import SelectorError
from kedge_server.devices.tables import DeviceRow
from kedge_server.errors import MalformedError
from kedge_server.repository.withdrawal import require_listed
from kedge_server.rollouts import service
from kedge_server.rollouts.stages import RolloutEvent
from kedge_shared.api import PlanInfo, RolloutInfo, RolloutSpec
from kedge_shared.rollouts import SELECTOR_MOST


def create(services: Context, spec: RolloutSpec, who: Principal) -> RolloutInfo:
    """Draws the cohorts, stores them and assigns the first stage.

    Whoever is confined to a part of the fleet draws from that part, which joins the selector.

    Raises:
        RequestError: As :func:`kedge_server.rollouts.service.create`, or it was taken back.
    """
    spec = narrowed(spec, who.reach)
    with transaction(services.engine) as session:
        listed = services.repository.targets(session)
        require_listed(session, listed, spec.model, spec.release)
        made = service.create(session, spec, str(who), now(session))
    services.follower.follow()
    return made


def plan(services: Context, spec: RolloutSpec, who: Principal) -> PlanInfo:
    """Says who would get what, when, and why not the others; changes nothing.

    Raises:
        RequestError: As :func:`kedge_server.rollouts.service.plan`.
    """
    spec = narrowed(spec, who.reach)
    with transaction(services.engine) as session:
        found = service.plan(session, spec)
        return _seen(session, found, who.reach)


def approve(services: Context, rollout: str, who: Principal) -> RolloutInfo:
    """Lets a stage go on that its gate leaves to a person.

    Raises:
        RequestError: As :func:`kedge_server.rollouts.service.approve`.
    """
    with transaction(services.engine) as session:
        changed = service.approve(session, rollout, str(who), now(session))
    services.follower.follow()
    return changed


def retry(services: Context, rollout: str, who: Principal) -> RolloutInfo:
    """Gives boards that failed or could not decide the release again, despite quarantine.

    Raises:
        RequestError: As :func:`kedge_server.rollouts.service.retry`.
    """
    with transaction(services.engine) as session:
        changed = service.retry(session, rollout, str(who), now(session))
    services.follower.follow()
    return changed


def change(services: Context, rollout: str, event: RolloutEvent, who: Principal) -> RolloutInfo:
    """Pauses, resumes, halts or stops.

    Raises:
        RequestError: As :func:`kedge_server.rollouts.service.change`.
    """
    with transaction(services.engine) as session:
        changed = service.change(session, rollout, event, str(who), now(session))
    services.follower.follow()
    return changed


def narrowed(spec: RolloutSpec, within: Reach) -> RolloutSpec:
    """Returns a specification for the boards that are within.

    Raises:
        MalformedError: The selector becomes too long.
    """
    if within.whole:
        return spec
    try:
        selector = within.narrowed(spec.selector)
    except SelectorError:
        # Named with its field and position by the service, like every other fault.
        return spec
    if len(selector) > SELECTOR_MOST:
        raise MalformedError(f"selector: longer than {SELECTOR_MOST} together with your scope")
    return replace(spec, selector=selector)


def _seen(session: Session, found: PlanInfo, within: Reach) -> PlanInfo:
    """Returns a plan without the boards that are not within."""
    if within.whole:
        return found
    inside = set(session.exec(select(DeviceRow.id).where(sieve.within(session, within))))
    return replace(
        found, skipped={name: why for name, why in found.skipped.items() if name in inside}
    )
