"""Two releases side by side: what differs, and whether it is for the better. Pure.

The one comparison of console and command line; each writes it in its own way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import msgspec

from kedge_server.releases.figures import FIGURES, figures_of
from kedge_server.releases.precision import by_block, counted, in_words
from kedge_shared.build_report import BuildReport
from kedge_shared.manifest import Manifest

Value = TypeVar("Value", float, str)
Change = Literal["better", "worse", "changed", "same"]

#: What names a build; two builds always differ in it.
_NAMES = frozenset({"model", "release", "release_counter", "device_class", "schema"})
#: Shown for themselves: figures, sizes, and the hash of recorded outputs.
_APART = frozenset({"measured", "files", "golden.references"})
#: Settings that are lists of names.
_LISTS = frozenset({"output.classes", "provenance.recipe.float_blocks"})
_PRECISION = "precision"


@dataclass(frozen=True)
class Side:
    """A build that is compared.

    Attributes:
        manifest: As signed.
        report: The builder's, if it was published.
    """

    manifest: Manifest
    report: BuildReport | None = None


@dataclass(frozen=True)
class Difference(Generic[Value]):
    """A figure (a number) or a setting (a text) of both.

    Attributes:
        what: Its name: ``map50_95``, ``input.width``, …
        before: Of the first; ``None`` where it has none.
        after: Of the second.
        change: For better or worse; a setting, or what cannot be compared, is only changed.
        ratio: Relative, −0.1 for a tenth less; ``None`` where it says nothing.
        note: What else there is to say.
    """

    what: str
    before: Value | None
    after: Value | None
    change: Change
    ratio: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Pair:
    """The builds of one class.

    Attributes:
        device_class: It.
        missing: ``before`` or ``after``: which release has no build for the class; empty: both do.
        figures: Every figure.
        settings: Settings that differ.
        same: How many settings do not.
    """

    device_class: str
    missing: Literal["", "before", "after"] = ""
    figures: tuple[Difference[float], ...] = ()
    settings: tuple[Difference[str], ...] = ()
    same: int = 0


def compare(before: Mapping[str, Side], after: Mapping[str, Side]) -> list[Pair]:
    """Returns both releases' builds by class, the shared classes first.

    Args:
        before: Device class → build, of the first release.
        after: The same of the second.
    """
    both = before.keys() & after.keys()
    names = sorted(before.keys() | after.keys(), key=lambda each: (each not in both, each))
    return [_pair(each, before.get(each), after.get(each)) for each in names]


def _pair(name: str, before: Side | None, after: Side | None) -> Pair:
    if before is None or after is None:
        return Pair(name, "before" if before is None else "after")
    every = list(_settings(before, after))
    settings = tuple(each for each in every if each.change != "same")
    return Pair(name, "", tuple(_figures(before, after)), settings, len(every) - len(settings))


def _figures(before: Side, after: Side) -> Iterator[Difference[float]]:
    was = figures_of(before.manifest, before.report)
    now = figures_of(after.manifest, after.report)
    names = [each for each in FIGURES if each in was or each in now]
    names += sorted((was.keys() | now.keys()) - FIGURES.keys())
    machines = _machines(before.manifest), _machines(after.manifest)
    for name in names:
        comparable = machines[0].get(name) == machines[1].get(name)
        yield _figure(name, was.get(name), now.get(name), comparable)


def _figure(
    name: str, before: float | None, after: float | None, same_machine: bool
) -> Difference[float]:  # fmt: skip
    if before is None or after is None:
        return Difference(name, before, after, "changed", note="measured in one only")
    known = FIGURES.get(name)
    if not same_machine and (known is None or known.bound):
        return Difference(name, before, after, "changed", note="measured on different machines")
    ratio = after / before - 1 if before else None
    if before == after:
        return Difference(name, before, after, "same", ratio)
    change: Change = "changed"
    if known is not None:
        change = "better" if (after > before) == known.more else "worse"
    return Difference(name, before, after, change, ratio)


def _machines(manifest: Manifest) -> dict[str, str]:
    return {each.what: each.machine for each in manifest.measured}


def _settings(before: Side, after: Side) -> Iterator[Difference[str]]:
    was, now = _flat_side(before), _flat_side(after)
    if before.report is None or after.report is None:
        # Of a release that was published without a report nothing is known, which is no change.
        was, now = _without_precision(was), _without_precision(now)
    for name in sorted(was.keys() | now.keys()):
        if name not in _NAMES | _APART:
            yield _setting(name, was.get(name, ""), now.get(name, ""))


def _setting(name: str, before: str, after: str) -> Difference[str]:
    if before == after:
        return Difference(name, before, after, "same")
    said = "new" if not before else "gone" if not after else ""
    if name in _LISTS:
        said = _members(before, after)
    return Difference(name, before, after, "changed", note=said)


def _flat_side(side: Side) -> dict[str, str]:
    found = flat(msgspec.to_builtins(side.manifest))
    if side.report is None:
        return found
    found[f"{_PRECISION}.layers"] = in_words(counted(side.report))
    for each in by_block(side.report):
        if each.name:
            found[f"{_PRECISION}.{each.name}"] = "+".join(name for name, _ in each.precisions)
    return found


def _without_precision(settings: Mapping[str, str]) -> dict[str, str]:
    return {name: each for name, each in settings.items() if not name.startswith(f"{_PRECISION}.")}


def _members(before: str, after: str) -> str:
    """Says what came into a list and what went."""
    was, now = _list(before), _list(after)
    came, went = (
        [each for each in now if each not in was],
        [each for each in was if each not in now],
    )
    said = [f"+ {', '.join(came)}" if came else "", f"− {', '.join(went)}" if went else ""]
    return "; ".join(each for each in said if each) or "in another order"


def _list(text: str) -> list[str]:
    return [each for each in text.split(", ") if each not in {"", "none"}]


def flat(value: Any, name: str = "") -> dict[str, str]:
    """Returns a structure as dotted names and texts; lists of plain values are one text."""
    if isinstance(value, Mapping):
        found: dict[str, str] = {}
        for key, each in value.items():
            path = f"{name}.{key}" if name else str(key)
            found |= {path: ""} if path in _APART else flat(each, path)
        return found
    if isinstance(value, Sequence) and not isinstance(value, str):
        if any(isinstance(each, Mapping) for each in value):
            return {
                k: v
                for at, each in enumerate(value)
                for k, v in flat(each, f"{name}.{at + 1}").items()
            }
        return {name: ", ".join(map(_text, value))}
    return {name: _text(value)}


def _text(value: object) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
