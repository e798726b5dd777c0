"""What the release must hold against the one before it, and how much both may differ. Decides.

Boards compare a new engine with the old one on live frames and take losses beyond ``disagreement``
for harm. Two engines of one make differ on one object in twenty; after a retraining, or with a
larger model, on one in five. Who does not state that has good releases thrown out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kedge_shared import wire
from kedge_shared.detections import Score
from kedge_shared.manifest import Shadow

_LIMIT_BYTES = 64 * 1024
_RESAMPLES = 1000
_UPPER = 0.95


@dataclass(frozen=True)
class Compared:
    """What two releases say of the same images.

    Attributes:
        release: The older one's.
        objects: That either is sure of.
        missed: Seen by the older engine alone.
        gained: Seen by the newer alone.
        differ: Share of the objects on which two equally good engines of these two makes differ,
            both ways together: upper end of 95 %, by images.
    """

    release: str
    objects: int
    missed: int
    gained: int
    differ: float

    @property
    def lost(self) -> float:
        """Net loss, as a share of what the older engine sees."""
        return (self.missed - self.gained) / max(1, self.objects - self.gained)


def compared(release: str, images: Sequence[Score], *, seed: int) -> Compared:
    """Adds up images.

    What differs both ways says how unlike the makes are; what one side has more of says that it is
    better or worse, and no ``disagreement`` shall cover that. So twice the smaller side counts.

    Args:
        release: The older one's.
        images: Of each, with the older engine as reference.
        seed: Of the bootstrap over images (Efron and Tibshirani 1993, chapter 6).
    """
    rows = np.array([[each.hits, each.missed, each.extra] for each in images]).reshape(-1, 3)
    rng = np.random.default_rng(seed)
    picked = rng.integers(0, max(1, len(rows)), (_RESAMPLES, len(rows)))
    drawn = rows[picked].sum(axis=1) if len(rows) else np.zeros((1, 3))
    shares = drawn[:, 1:] / np.maximum(drawn.sum(axis=1, keepdims=True), 1)
    upper = np.quantile(shares, _UPPER, axis=0)
    hits, missed, gained = (int(each) for each in rows.sum(axis=0))
    return Compared(release, hits + missed + gained, missed, gained, float(2 * upper.min()))


def stated(terms: Shadow, found: Compared) -> Shadow:
    """Returns terms that allow at least the disagreement that was found, to a hundredth above."""
    share = min(1.0, float(np.ceil(found.differ * 100) / 100))
    return replace(terms, disagreement=max(terms.disagreement, share))


def warning(terms: Shadow, found: Compared) -> str:
    """Says that boards will hardly take the release; empty if they may."""
    if terms.must_hold == "nothing" or found.lost < terms.max_loss:
        return ""
    return (
        f"boards that run {found.release} will hardly take this build: on the gate images it loses "
        f"{found.lost:.0%} of what {found.release} sees, and shadow must rule out "
        f"{terms.max_loss:.0%}"
    )


def read_terms(path: Path) -> Shadow:
    """Reads ``shadow`` of a manifest from a YAML file.

    Raises:
        InputError: It cannot be read, or says something that the manifest does not know.
    """
    data = wire.read_limited(path, "shadow terms", _LIMIT_BYTES)
    return wire.decode_yaml(data, Shadow, f"shadow terms {path}")
