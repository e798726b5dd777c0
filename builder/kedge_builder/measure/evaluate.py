"""Accuracy on the real artifact: mAP as Ultralytics counts it, and the drop with its interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from kedge_builder.data.datasets import Labels, Sample
from kedge_builder.measure.engines import Engine
from kedge_shared.detections import Array, iou_matrix
from kedge_shared.manifest import InputSpec, OutputSpec
from kedge_shared.vision import decode, prepare, scores_of

#: As in COCO: 0.5, 0.55 … 0.95.
THRESHOLDS = np.linspace(0.5, 0.95, 10)
#: What validators use: every box down to a confidence of 0.001 counts.
_CONF, _IOU = 0.001, 0.7
_RESAMPLES = 200
_INTERVAL = 0.95

Flags: TypeAlias = npt.NDArray[np.bool_]
Progress: TypeAlias = Callable[[], None]


@dataclass(frozen=True)
class ImageStats:
    """What one image adds to the precision-recall curve.

    Attributes:
        hits: (n, 10) whether a detection is right at each threshold.
        scores: (n,) confidence.
        classes: (n,) class of the detection.
        truth: (m,) classes of the labels.
    """

    hits: Flags
    scores: Array
    classes: Array
    truth: Array


@dataclass(frozen=True)
class Accuracy:
    """Mean average precision.

    Attributes:
        map50: At IoU 0.5.
        map50_95: Mean over IoU 0.5 … 0.95.
        per_class: Class index → mAP50-95, of classes with labels.
        stats: Per image, for resampling.
        finite: No output held NaN or infinity.
        seen: Detections over a confidence of 0.05, in all.
    """

    map50: float
    map50_95: float
    per_class: dict[int, float]
    stats: tuple[ImageStats, ...]
    finite: bool
    seen: int


@dataclass(frozen=True)
class Drop:
    """Loss against float, as a fraction of one; negative is a gain.

    Attributes:
        estimate: Float minus built.
        low: Lower end of the 95 % interval.
        high: Upper end.
    """

    estimate: float
    low: float
    high: float


def evaluate(
    engine: Engine, samples: Sequence[Sample], given: InputSpec, read: OutputSpec, tick: Progress
) -> Accuracy:
    """Runs an engine over labelled images.

    Args:
        engine: Loaded in its runtime.
        samples: Images with labels.
        given: The engine's input.
        read: How its output is read.
        tick: Called after each image.
    """
    stats: list[ImageStats] = []
    finite, seen = True, 0
    for sample in samples:
        frame = sample.frame()
        batch, place = prepare(frame, given)
        raw = engine.infer(batch)
        finite = finite and bool(np.isfinite(raw).all())
        found = decode(np.nan_to_num(raw), place, read, conf=_CONF, iou=_IOU, multi_label=True)
        # Scores that are all the same number, zero or not, tell nothing apart: nothing is seen.
        seen += int((found[:, 4] > 0.05).sum()) if np.ptp(scores_of(raw, read)) > 0 else 0
        stats.append(image_stats(found, sample.truth(*frame.shape[:2])))
        tick()
    map50, map50_95, per_class = mean_average_precision(stats)
    return Accuracy(map50, map50_95, per_class, tuple(stats), finite, seen)


def image_stats(found: Array, truth: Labels) -> ImageStats:
    """Matches detections (n, 6) with labels (m, 5) at every threshold, each label once.

    As in COCO: in order of confidence, a detection takes the label of its class that it overlaps
    most among those still free at the threshold.
    """
    found = found[np.argsort(-found[:, 4], kind="stable")]
    hits = np.zeros((len(found), len(THRESHOLDS)), dtype=bool)
    if len(found) and len(truth):
        overlap = iou_matrix(found, np.ascontiguousarray(truth[:, 1:]))
        overlap[found[:, 5][:, None] != truth[:, 0][None, :]] = 0
        free = np.ones((len(truth), len(THRESHOLDS)), dtype=bool)
        every = np.arange(len(THRESHOLDS))
        for at in np.flatnonzero(overlap.max(axis=1) >= THRESHOLDS[0]):
            left = np.where(free, overlap[at][:, None], 0)
            best = left.argmax(axis=0)
            hits[at] = left[best, every] >= THRESHOLDS
            free[best[hits[at]], every[hits[at]]] = False
    return ImageStats(hits, found[:, 4], found[:, 5], truth[:, 0])


def mean_average_precision(stats: Sequence[ImageStats]) -> tuple[float, float, dict[int, float]]:
    """Returns mAP50, mAP50-95 and mAP50-95 by class, computed by Ultralytics."""
    from kedge_builder.models.torchvision_ops import ensure_torchvision_ops
    from kedge_builder.models.ultralytics_offline import quiet

    ensure_torchvision_ops()
    quiet()
    from ultralytics.utils.metrics import ap_per_class

    hits = np.concatenate([each.hits for each in stats])
    truth = np.concatenate([each.truth for each in stats])
    if not len(truth) or not len(hits):
        return 0.0, 0.0, {}
    scores = np.concatenate([each.scores for each in stats])
    classes = np.concatenate([each.classes for each in stats])
    result = ap_per_class(hits, scores, classes, truth)
    ap, unique = np.asarray(result[5]), np.asarray(result[6], dtype=int)
    per_class = {int(name): float(row.mean()) for name, row in zip(unique, ap, strict=True)}
    return float(ap[:, 0].mean()), float(ap.mean()), per_class


def drop_interval(reference: Accuracy, built: Accuracy, *, seed: int) -> Drop:
    """Resamples images, the same for both sides, and returns the drop of mAP50-95.

    A paired bootstrap (Efron and Tibshirani 1993, chapter 8): 128 images leave ± 2.6 to 4.3
    points. The estimate is that of all images; the interval is its percentiles.
    """
    rng = np.random.default_rng(seed)
    count = len(reference.stats)
    drops = []
    for _ in range(_RESAMPLES):
        picked = rng.integers(0, count, count)
        before = mean_average_precision([reference.stats[at] for at in picked])[1]
        after = mean_average_precision([built.stats[at] for at in picked])[1]
        drops.append(before - after)
    low, high = np.quantile(drops, [(1 - _INTERVAL) / 2, (1 + _INTERVAL) / 2])
    return Drop(reference.map50_95 - built.map50_95, float(low), float(high))


def save_accuracy(accuracy: Accuracy, path: Path) -> None:
    """Writes an ``.npz`` that :func:`load_accuracy` reads."""
    stats = accuracy.stats
    columns = {
        "hits": np.concatenate([each.hits for each in stats]),
        "scores": np.concatenate([each.scores for each in stats]),
        "classes": np.concatenate([each.classes for each in stats]),
        "truth": np.concatenate([each.truth for each in stats]),
        "found": np.array([len(each.scores) for each in stats]),
        "labels": np.array([len(each.truth) for each in stats]),
        "more": np.array([accuracy.finite, accuracy.seen]),
    }
    np.savez_compressed(path, **columns)  # type: ignore[arg-type]


def load_accuracy(path: Path) -> Accuracy:
    """Reads what :func:`save_accuracy` wrote; no pickles."""
    with np.load(path, allow_pickle=False) as file:
        found, labels = np.cumsum(file["found"])[:-1], np.cumsum(file["labels"])[:-1]
        rows = zip(
            *(np.split(file[name], found) for name in ("hits", "scores", "classes")),
            np.split(file["truth"], labels),
            strict=True,
        )
        stats = tuple(ImageStats(*each) for each in rows)
        finite, seen = bool(file["more"][0]), int(file["more"][1])
    map50, map50_95, per_class = mean_average_precision(stats)
    return Accuracy(map50, map50_95, per_class, stats, finite, seen)
