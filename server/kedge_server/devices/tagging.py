"""Tags of many boards at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from sqlalchemy import Table, bindparam, select, update
from sqlmodel import Session, col

from kedge_server.accounts.principal import Principal
from kedge_server.audit.service import record
from kedge_server.database import now
from kedge_server.devices.facts import COLUMNS, facts_of_device
from kedge_server.devices.tables import DeviceRow
from kedge_server.errors import ConflictError, MalformedError, NotFoundError
from kedge_server.replicas import changes
from kedge_server.rollouts import membership, reports
from kedge_shared.fleet import TAGS_MOST, TagsChange, TagsChanged

_TABLE: Table = DeviceRow.__table__  # type: ignore[attr-defined]
_UPDATE = update(_TABLE).where(_TABLE.c.id == bindparam("key")).values(tags=bindparam("text"))
_AT_ONCE = 500


def change(session: Session, asked: TagsChange, who: Principal) -> TagsChanged:
    """Sets and drops tags of boards.

    Whoever is confined to a part of the fleet cannot tag a board out of it.

    Raises:
        MalformedError: Nothing is to be changed, or a board would have too many tags.
        NotFoundError: A board is not there, or not within.
        ConflictError: A board would leave the part of the fleet that the person is confined to.
    """
    membership.settle(session)
    set_, drop = asked.set, asked.drop
    if not asked.devices or not (set_ or drop):
        raise MalformedError("nothing is to be changed", "name boards and a tag")
    wanted = sorted(set(asked.devices))
    values = []
    for at in range(0, len(wanted), _AT_ONCE):
        values += _changed(session, wanted[at : at + _AT_ONCE], set_, drop, who)
    if values:
        session.connection().execute(_UPDATE, values)
        session.expire_all()
    reports.retagged(session, [each["key"] for each in values], now(session))
    for each in values:
        changes.note(session, "device", each["key"])
    said = [f"{key}={value}" for key, value in sorted(set_.items())]
    said += [f"no {key}" for key in sorted(drop)]
    some = ", ".join(wanted[:5]) + (", …" if len(wanted) > 5 else "")
    record(session, str(who), "device tags", str(len(wanted)), f"{', '.join(said)}: {some}")
    return TagsChanged(devices=len(wanted), changed=len(values))


def _changed(
    session: Session, names: Sequence[str], set_: Mapping[str, str], drop: Sequence[str],
    who: Principal,
) -> list[dict[str, str]]:  # fmt: skip
    rows = session.execute(select(*COLUMNS).where(col(DeviceRow.id).in_(names))).all()  # type: ignore[call-overload]
    found = {row.id: row for row in rows if who.reach.includes(facts_of_device(row))}
    for name in names:
        if name not in found:
            raise NotFoundError(f"there is no device {name}", "`kedge device list`")
    values = []
    for row in found.values():
        tags = json.loads(row.tags)
        after = {key: value for key, value in {**tags, **set_}.items() if key not in drop}
        if len(after) > TAGS_MOST:
            raise MalformedError(f"{row.id} would have {len(after)} tags", f"{TAGS_MOST} at most")
        if after == tags:
            continue
        facts = {each: value for each, value in facts_of_device(row).items()
                 if not each.startswith("tag.")}  # fmt: skip
        facts |= {f"tag.{key}": value for key, value in after.items()}
        if not who.reach.includes(facts):
            raise ConflictError(f"{row.id} would leave your part of the fleet")
        values.append({"key": row.id, "text": json.dumps(after)})
    return values
