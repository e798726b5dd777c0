"""The fleet as a whole, and tags that operators give boards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta

from kedge_shared.ids import Name

#: As selectors name them: ``tag.KEY``.
TAG_KEY_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\Z"
TAG_VALUE_MOST = 256
TagKey = Annotated[str, Meta(pattern=TAG_KEY_PATTERN)]
TagValue = Annotated[str, Meta(min_length=1, max_length=TAG_VALUE_MOST)]
#: Boards of a page, and the most tags of one board.
PAGE_MOST = 1000
TAGS_MOST = 64
#: Boards whose tags one request changes.
TAGGED_MOST = 1000


@dataclass(frozen=True, kw_only=True)
class ClassHealth:
    """Boards of a device class.

    Attributes:
        device_class: Which.
        devices: That serve and are not revoked; all other numbers count these.
        seen_5m: Polled or reported within five minutes.
        seen_1d: The same within a day.
        phases: Phase of the last deployment → boards.
        releases: Release that serves → boards; empty where nothing does yet.
        suspected_clones: Boards whose key two seem to have.
        silent: Not heard of for :attr:`FleetInfo.silent_seconds`.
        at_work: An update is on the way to them.
        behind: They do not run what they were told to, and nothing is on the way.
        assigned: Release that they were told to run → boards.
    """

    device_class: str
    devices: int
    seen_5m: int
    seen_1d: int
    phases: dict[str, int]
    releases: dict[str, int]
    suspected_clones: int
    silent: int = 0
    at_work: int = 0
    behind: int = 0
    assigned: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FleetInfo:
    """How the fleet is.

    Attributes:
        at: Unix seconds.
        classes: By name.
        revoked: Boards that are refused.
        measuring: Boards that only measure.
        pending: Boards that wait for approval; ``None`` to whoever is confined to a part.
        rollouts: State → rollouts that stand there, within one's scope.
        expires: Role of the image repository → Unix seconds when its metadata expires.
        alarm: What a person must see to; empty for nothing.
        silent_seconds: Who was not heard of for so long is silent.
    """

    at: float
    classes: tuple[ClassHealth, ...]
    revoked: int
    measuring: int
    pending: int | None
    rollouts: dict[str, int]
    expires: dict[str, float]
    alarm: str
    silent_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TagsChange:
    """Asks for other tags of boards.

    Attributes:
        devices: Whose.
        set: Tags that are added, or have another value.
        drop: Tags that they shall not have any more.
    """

    devices: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=TAGGED_MOST)]
    set: Annotated[dict[TagKey, TagValue], Meta(max_length=TAGS_MOST)] = field(default_factory=dict)
    drop: Annotated[tuple[str, ...], Meta(max_length=TAGS_MOST)] = ()


@dataclass(frozen=True, kw_only=True)
class TagsChanged:
    """What a change of tags did.

    Attributes:
        devices: That were named.
        changed: That had other tags before.
    """

    devices: int
    changed: int
