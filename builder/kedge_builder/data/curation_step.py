"""Curation in a build: images are read and described, the calibration set is put into the data."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from kedge_builder.data.curation import CurationOptions, Pair, curate, refuse_leaks
from kedge_builder.data.datasets import Data, Sample
from kedge_builder.data.duplicates import same_pictures
from kedge_builder.data.features import Description, FeatureExtractor, describe

_NAMED = 3


def steps(data: Data, options: CurationOptions) -> int:
    """Returns how often :func:`curated` will call its ``tick``."""
    return min(len(data.pool), options.pool_limit) + len(data.gate) + len(data.select)


def curated(
    data: Data,
    extractor: FeatureExtractor,
    options: CurationOptions,
    tick: Callable[[], None] = lambda: None,
) -> Data:
    """Returns the data with a calibration set that was chosen and judged.

    Evaluation images found among the candidates or in ``select`` leave every other split.

    Args:
        data: As read.
        extractor: Of the features.
        options: What is wanted.
        tick: Called once an image.

    Raises:
        InputError: An image or its labels cannot be read, evaluation images are among the
            candidates (too many, or in a folder named for calibration), or too few are left.
    """
    candidates = drawn(data.pool, options)
    labelled = not data.pool_given or any(each.labels.is_file() for each in candidates)
    pool = [_described(each, extractor, tick, labelled=labelled) for each in candidates]
    gate, select = (
        [_described(each, extractor, tick, labelled=True) for each in split]
        for split in (data.gate, data.select)
    )
    found = curate(pool, gate, data.classes, options, given=data.pool_given)
    seen = [select[each.index] for each in same_pictures(select, gate)]
    refuse_leaks([each.name for each in seen], len(select), given=False, share=options.leak_share)
    leaked = {each.sha256 for each in found.leaks} | {each.sha256 for each in seen}
    samples = {each.sha256: each for each in candidates}
    return replace(
        data,
        calibrate=tuple(samples[each.sha256] for each in found.calibration),
        select=tuple(each for each in data.select if each.sha256 not in leaked),
        train=tuple(each for each in data.train if each.sha256 not in leaked),
        notes=(*data.notes, *_notes(found.leaks, found.duplicates, seen)),
        calibration=found,
    )


def drawn(pool: Sequence[Sample], options: CurationOptions) -> list[Sample]:
    """Returns the candidates that are looked at, in a fixed order."""
    if len(pool) <= options.pool_limit:
        return list(pool)
    rng = random.Random(options.seed)  # noqa: S311 - a draw of images, not a secret
    return rng.sample(list(pool), options.pool_limit)


def _described(
    sample: Sample, extractor: FeatureExtractor, tick: Callable[[], None], *, labelled: bool
) -> Description:
    frame = sample.frame()
    truth = sample.truth(*frame.shape[:2]) if labelled else None
    name = "/".join(sample.image.parts[-3:])
    found = describe(frame, truth, extractor, name=name, sha256=sample.sha256)
    tick()
    return found


def _notes(
    leaks: Sequence[Pair], duplicates: Sequence[Pair], select: Sequence[Description]
) -> list[str]:
    said = (
        ("candidates for calibration show an evaluation image", [each.name for each in leaks]),
        ("candidates for calibration repeat another", [each.name for each in duplicates]),
        ("images for choosing show an evaluation image", [each.name for each in select]),
    )
    return [
        f"{len(names)} {what}: left out ({', '.join(names[:_NAMED])}"
        + (", …)" if len(names) > _NAMED else ")")
        for what, names in said
        if names
    ]
