"""How long the agent watches before it decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

Seconds = Annotated[float, Meta(gt=0, le=30 * 86400)]


@dataclass(frozen=True, kw_only=True)
class BuildingSettings:
    """A plan that is built on the board, off the live path.

    Attributes:
        seconds: After them it is given up for this time, standing still included.
        slowdown: How many times as long a live frame may take meanwhile; beyond it the build
            stands still.
        windows: A build that so many maintenance windows have ended is given up: the next one
            would end it too.
    """

    seconds: Seconds = 3600.0
    slowdown: Annotated[float, Meta(ge=1.05, le=100)] = 1.5
    windows: Annotated[int, Meta(ge=1, le=100)] = 3


@dataclass(frozen=True, kw_only=True)
class ShadowSettings:
    """The candidate beside the active engine, before the swap.

    Attributes:
        seconds: How long.
        share: Share of the time it may take.
        stills: No two frames show the same objects (a triggered camera): each frame counts once.
            Always so for a folder of images.
    """

    seconds: Seconds = 60.0
    share: Annotated[float, Meta(gt=0, le=1)] = 0.1
    stills: bool = False


@dataclass(frozen=True, kw_only=True)
class ProbationSettings:
    """The new engine serving, the old one beside it.

    Attributes:
        seconds: At least.
        max_seconds: Until it is undecided; the model's policy may grant more.
        min_frames: Live frames before anything is judged.
        error_share: Chance that is borne of confirming an engine that is worse.
        harm_share: Chance that is borne of taking back one that is not, at all looks together.
    """

    seconds: Seconds = 120.0
    max_seconds: Seconds = 1800.0
    min_frames: Annotated[int, Meta(ge=1)] = 100
    error_share: Annotated[float, Meta(gt=0, lt=0.5)] = 0.05
    harm_share: Annotated[float, Meta(gt=0, lt=0.5)] = 0.01
