"""What people do with boards, each in one transaction: behind the API and the console alike."""

from __future__ import annotations

from kedge_server.accounts.principal import Principal
from kedge_server.context import Context
from kedge_server.database import transaction
from kedge_server.devices import enrolment, keys, pending, service, tagging
from kedge_shared.admission import PendingDevice
from kedge_shared.api import DeviceInfo
from kedge_shared.fleet import TagsChange, TagsChanged
from kedge_shared.protocol import Enrolled


def approve(services: Context, fingerprint: str, who: Principal) -> Enrolled:
    """Takes a board in that waits.

    Raises:
        RequestError: Nobody waits with such a key, or the name has another.
    """
    with transaction(services.engine) as session:
        asked = pending.take(session, fingerprint)
        found = enrolment.admit(session, asked, str(who))
    services.follower.follow()
    return found.answer


def reject(services: Context, fingerprint: str, who: Principal) -> PendingDevice:
    """Refuses a board that waits.

    Raises:
        NotFoundError: Nobody waits with such a key.
    """
    with transaction(services.engine) as session:
        return pending.reject(session, fingerprint, str(who))


def revoke(services: Context, device: str, who: Principal) -> DeviceInfo:
    """Refuses a board at its next request, and its key for ever.

    Raises:
        NotFoundError: There is no such device.
    """
    with transaction(services.engine) as session:
        row = service.find(session, device)
        keys.revoke(session, row, str(who))
        found = service.info(row)
    services.follower.follow()
    return found


def clear(services: Context, device: str, who: Principal) -> DeviceInfo:
    """Says that a person has looked and there is one board with a key.

    Raises:
        NotFoundError: There is no such device.
    """
    with transaction(services.engine) as session:
        row = service.find(session, device)
        keys.clear(session, row, str(who))
        found = service.info(row)
    services.follower.follow()
    return found


def tag(services: Context, asked: TagsChange, who: Principal) -> TagsChanged:
    """Sets and drops tags of many boards at once, or of none.

    Raises:
        RequestError: As :func:`kedge_server.devices.tagging.change`.
    """
    with transaction(services.engine) as session:
        found = tagging.change(session, asked, who)
    services.follower.follow()
    return found
