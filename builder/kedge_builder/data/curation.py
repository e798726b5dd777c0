"""The calibration set: chosen from a pool, kept apart from the verdict's images, judged. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kedge_builder.data.duplicates import repeated, same_pictures
from kedge_builder.data.features import Description
from kedge_builder.data.representation import Representation, check_count, represents
from kedge_builder.data.selection import choose, coverage, embed, random_coverage
from kedge_shared.errors import InputError

_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class CurationOptions:
    """What the calibration set shall be.

    Attributes:
        count: Images wanted; 100 to 500 are sensible.
        seed: Of what is drawn: pools over the limit, yardsticks, permutations.
        leak_share: Share of the pool that may be evaluation images before all is refused. A few
            are an oversight and are dropped; many mean that the splits are not what they seem.
        pool_limit: Images looked at, the rest is not: 1,000 take some 10 to 20 s.
    """

    count: int = 128
    seed: int = 0
    leak_share: float = 0.2
    pool_limit: int = 1000


@dataclass(frozen=True)
class Pair:
    """An image that is the same picture as another.

    Attributes:
        name: Of the image.
        other: Of the image it is the same as.
        sha256: Of the image's file.
    """

    name: str
    other: str
    sha256: str


@dataclass(frozen=True)
class Curation:
    """A calibration set, and what was looked at to choose it.

    Attributes:
        pool: Candidates that are distinct and no evaluation images.
        chosen: Indices into ``pool``, in the order of choice.
        evaluation: The verdict's images, distinct.
        classes: Names in the order of the labels.
        duplicates: Candidates dropped because an earlier one is the same picture.
        leaks: Candidates dropped because an evaluation image is the same picture.
        coverage: How far a candidate is from the nearest one chosen, on average.
        random_coverage: The same for sets drawn by chance.
        representation: Whether the chosen stand for the evaluation's.
    """

    pool: tuple[Description, ...]
    chosen: tuple[int, ...]
    evaluation: tuple[Description, ...]
    classes: tuple[str, ...]
    duplicates: tuple[Pair, ...]
    leaks: tuple[Pair, ...]
    coverage: float
    random_coverage: float
    representation: Representation

    @property
    def calibration(self) -> tuple[Description, ...]:
        """The images chosen."""
        return tuple(self.pool[at] for at in self.chosen)


def curate(
    pool: Sequence[Description],
    evaluation: Sequence[Description],
    classes: tuple[str, ...],
    options: CurationOptions,
    *,
    given: bool = False,
) -> Curation:
    """Chooses a calibration set. The evaluation's images bar candidates; they choose none.

    Args:
        pool: Candidates.
        evaluation: The verdict's images.
        classes: Names in the order of the labels.
        options: What is wanted.
        given: The user named the pool as calibration images: no leak is let pass.

    Raises:
        InputError: Evaluation images among the candidates, too many or in a pool that was given;
            or fewer than eight candidates are left.
    """
    found = same_pictures(pool, evaluation)
    leaks = tuple(_pair(pool[each.index], evaluation[each.other]) for each in found)
    refuse_leaks([each.name for each in leaks], len(pool), given=given, share=options.leak_share)
    barred = {each.index for each in found}
    clean = [each for at, each in enumerate(pool) if at not in barred]
    again = repeated(clean)
    duplicates = tuple(_pair(clean[each.index], clean[each.other]) for each in again)
    barred = {each.index for each in again}
    distinct = tuple(each for at, each in enumerate(clean) if at not in barred)
    check_count(len(distinct), _left(len(pool), len(leaks), len(duplicates)))
    points = embed(distinct, len(classes))
    count = min(options.count, len(distinct))
    chosen = choose(points, [each.classes or frozenset() for each in distinct], count)
    judges = _without_repeats(evaluation)
    return Curation(
        pool=distinct,
        chosen=tuple(chosen),
        evaluation=judges,
        classes=classes,
        duplicates=duplicates,
        leaks=leaks,
        coverage=coverage(points, chosen),
        random_coverage=random_coverage(points, count, seed=options.seed),
        representation=represents(
            [distinct[at] for at in chosen], judges, classes, seed=options.seed
        ),
    )


def refuse_leaks(names: Sequence[str], pool: int, *, given: bool, share: float) -> None:
    """Refuses a pool that holds evaluation images.

    Args:
        names: Of the candidates that are evaluation images.
        pool: Candidates.
        given: The user named the pool as calibration images.
        share: Share of the pool that may be.

    Raises:
        InputError: It is more, or there are any in a pool that was given.
    """
    if not names or (not given and len(names) <= share * pool):
        return
    examples = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
    key = "calibration" if given else "train"
    raise InputError(
        f"{len(names)} of {pool} images of '{key}' are evaluation images too ({examples})",
        f"take them out of '{key}': what calibrates must not judge",
    )


def _pair(image: Description, other: Description) -> Pair:
    return Pair(image.name, other.name, image.sha256)


def _left(pool: int, leaks: int, duplicates: int) -> str:
    if not leaks and not duplicates:
        return "the data"
    return f"the data ({pool} images, {leaks} of the evaluation's and {duplicates} repeated)"


def _without_repeats(images: Sequence[Description]) -> tuple[Description, ...]:
    barred = {each.index for each in repeated(images)}
    return tuple(each for at, each in enumerate(images) if at not in barred)
