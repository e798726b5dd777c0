"""Descriptions out of thin air: independent images of a synthetic world."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kedge_builder.data.features import Description

CLASSES = ("a", "b", "c", "d")


def world(
    seed: int,
    count: int,
    *,
    light: float = 118,
    area: float = 0.05,
    shares: Sequence[float] = (0.6, 0.4, 0.3, 0.1),
    shift: float = 0.0,
    labelled: bool = True,
) -> list[Description]:
    """Returns images of a world: mean light, median object area, share of images with a class."""
    rng = np.random.default_rng(seed)

    def one(at: int) -> Description:
        found = frozenset(int(each) for each in np.flatnonzero(rng.random(len(shares)) < shares))
        areas = area * np.exp(rng.normal(0, 0.8, int(rng.integers(1, 5))))
        changes: dict[str, Any] = {"classes": found, "areas": areas.astype(np.float32)}
        if not labelled:
            changes = {"classes": None, "areas": np.zeros(0, dtype=np.float32)}
        return Description(
            name=f"{seed}/{at}.jpg",
            sha256=f"{seed}-{at}",
            brightness=float(np.clip(rng.normal(light, 25), 0, 255)),
            contrast=float(rng.normal(55, 10)),
            features=(rng.normal(shift, 1, 32) + rng.normal(0, 1)).astype(np.float32),
            code=rng.choice(np.array([-1, 1], dtype=np.float32), 256),
            picture=rng.normal(0, 1, 1024).astype(np.float32),
            **changes,
        )

    return [one(at) for at in range(count)]
