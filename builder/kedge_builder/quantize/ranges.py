"""From histograms of activations to the range that INT8 shall span. Pure.

onnxruntime's own entropy calibrator is symmetric about zero, which wastes half of the steps on
SiLU's outputs (-0.28 … max), and it has no calibrator that minimises the error; these three read
one histogram each and keep the two ends apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from kedge_builder.quantize.observe import Histogram

Calibrator = Literal["minmax", "percentile", "entropy", "mse"]
CALIBRATORS: tuple[Calibrator, ...] = ("minmax", "percentile", "entropy", "mse")
#: Share of activations inside of the range, in per cent; the best of those tried on real models.
PERCENTILE = 99.99
#: Steps of eight bits.
LEVELS = 255
#: silu(-8) is -0.0027: less than a tenth of the smallest step in a range that reaches 8.
SILU_FLOOR = -8.0
#: How far the upper end is pulled in, as a share of the maximum, while looking for the best.
_TRIED = np.linspace(0.3, 1.0, 36)

Float64: TypeAlias = npt.NDArray[np.float64]


def span(
    histogram: Histogram, calibrator: Calibrator, *, feeds_silu: bool = False
) -> tuple[float, float]:
    """Returns the range of one tensor, zero included.

    Args:
        histogram: Of its activations.
        calibrator: ``minmax``: all; ``percentile``: all but 0.01 %; ``entropy``: least
            Kullback-Leibler divergence of the quantized distribution (Migacz, GTC 2017, s7310);
            ``mse``: least mean squared error (Banner et al. 2019, with a grid instead of Laplace).
        feeds_silu: The tensor is read by a SiLU alone. Below :data:`SILU_FLOOR` that answers zero
            whatever it reads, so no step is spent there, and errors count after it, not before.
    """
    if not histogram.counts.any() or histogram.low == histogram.high:
        return min(histogram.low, 0.0), max(histogram.high, 0.0)
    if calibrator == "minmax":
        low, high = histogram.low, histogram.high
    elif calibrator == "percentile":
        low, high = _percentile(histogram)
    else:
        low, high = _least(histogram, calibrator, feeds_silu=feeds_silu)
    return max(min(low, 0.0), SILU_FLOOR if feeds_silu else -np.inf), max(high, 0.0)


def _percentile(histogram: Histogram) -> tuple[float, float]:
    share = np.cumsum(histogram.counts) / histogram.counts.sum()
    cut = (100 - PERCENTILE) / 200
    centres = histogram.centres
    low = centres[np.searchsorted(share, cut)]
    high = centres[min(int(np.searchsorted(share, 1 - cut)), len(centres) - 1)]
    return max(float(low), histogram.low), min(float(high), histogram.high)


def _least(
    histogram: Histogram, calibrator: Calibrator, *, feeds_silu: bool
) -> tuple[float, float]:
    """Tries ends between 30 % and all of the longer side; the other end is cut likewise."""
    centres = histogram.centres
    lowest = max(histogram.low, SILU_FLOOR) if feeds_silu else histogram.low
    used = histogram.counts > 0
    values, counts = centres[used], histogram.counts[used].astype(np.float64)
    seen = _silu if feeds_silu else _as_it_is
    best = (np.inf, lowest, histogram.high)
    longest = max(abs(lowest), abs(histogram.high))
    for factor in _TRIED:
        low, high = max(lowest, -longest * factor), min(histogram.high, longest * factor)
        ends = min(low, 0.0), max(high, 0.0)
        if calibrator == "entropy":
            cost = _divergence(values, counts, *ends)
        else:
            cost = _squared_error(values, counts, *ends, seen)
        best = min(best, (cost, low, high))
    return float(best[1]), float(best[2])


def _silu(values: Float64) -> Float64:
    return np.asarray(values / (1 + np.exp(-np.maximum(values, -60.0))))


def _as_it_is(values: Float64) -> Float64:
    return values


def _squared_error(
    values: Float64, counts: Float64, low: float, high: float, seen: Callable[[Float64], Float64]
) -> float:
    step = (high - low) / LEVELS
    rounded = np.clip(np.round((values - low) / step), 0, LEVELS) * step + low
    return float((counts * (seen(values) - seen(rounded)) ** 2).sum())


def _divergence(values: Float64, counts: Float64, low: float, high: float) -> float:
    """KL divergence of the clipped distribution from the one that 255 steps can tell apart."""
    step = (high - low) / LEVELS
    bins = np.clip(np.round((values - low) / step), 0, LEVELS).astype(np.int64)
    inside = (values >= low - step / 2) & (values <= high + step / 2)
    if not inside.any():
        return np.inf
    # The reference carries what was clipped at its ends; the quantized one does not know of it.
    reference = np.where(inside, counts, 0.0)
    first, last = np.flatnonzero(inside)[[0, -1]]
    reference[first] += counts[:first].sum()
    reference[last] += counts[last + 1 :].sum()
    mass = np.bincount(bins[inside], weights=counts[inside], minlength=LEVELS + 1)
    members = np.bincount(bins[inside], minlength=LEVELS + 1)
    spread = np.where(inside, mass[bins] / np.maximum(members[bins], 1), 0.0)
    p, q = reference[inside] / reference.sum(), spread[inside] / spread.sum()
    return float((p * np.log(p / np.maximum(q, 1e-12))).sum())
