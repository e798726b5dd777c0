"""Two builds of one class side by side: what differs, and whether it is for the better. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from kedge_server.console.models.builds import FIGURES, Build, title, written

#: What names a build; two builds always differ in it.
_NAMES = frozenset({"model", "release", "release_counter", "device_class", "schema"})
_DIGITS = 12
#: Shown for themselves: figures, sizes, and the hash of recorded outputs.
_APART = frozenset({"measured", "files", "golden.references"})


@dataclass(frozen=True)
class Line:
    """A figure or a setting of both.

    Attributes:
        name: What it is.
        one: As the first has it; empty if it has none.
        other: As the second has it.
        change: better, worse, changed, or same.
        said: How it differs, in words; empty if the same.
    """

    name: str
    one: str
    other: str
    change: str
    said: str = ""


@dataclass(frozen=True)
class Pair:
    """The builds of one class.

    Attributes:
        device_class: It.
        one: Of the first release; ``None`` if it has none for the class.
        other: Of the second.
        figures: Every figure.
        changed: Settings that differ.
        same: How many settings do not.
    """

    device_class: str
    one: Build | None
    other: Build | None
    figures: tuple[Line, ...] = ()
    changed: tuple[Line, ...] = ()
    same: int = 0


def pairs(one: Mapping[str, Build], other: Mapping[str, Build]) -> list[Pair]:
    """Returns both releases' builds by class, the shared classes first."""
    names = sorted(
        one.keys() | other.keys(), key=lambda each: (each not in one.keys() & other.keys(), each)
    )
    return [_pair(each, one.get(each), other.get(each)) for each in names]


def _pair(name: str, one: Build | None, other: Build | None) -> Pair:
    if one is None or other is None:
        return Pair(name, one, other)
    settings = list(_settings(one, other))
    changed = tuple(each for each in settings if each.change != "same")
    return Pair(
        name, one, other, tuple(_figures(one, other)), changed, len(settings) - len(changed)
    )


def _figures(one: Build, other: Build) -> Iterator[Line]:
    before, after = one.figures, other.figures
    names = [each for each in FIGURES if each in before or each in after]
    names += sorted((before.keys() | after.keys()) - FIGURES.keys())
    for name in names:
        yield _figure(name, before.get(name), after.get(name))


def _figure(name: str, before: float | None, after: float | None) -> Line:
    texts = title(name), written(name, before), written(name, after)
    if before is None or after is None:
        return Line(*texts, "changed", "measured in one only")
    if before == after:
        return Line(*texts, "same")
    more, known = after > before, name in FIGURES
    change = "changed" if not known else "better" if more == FIGURES[name][2] else "worse"
    by = f"{'+' if more else '−'}{written(name, abs(after - before))}"
    share = f" ({(after - before) / before:+.1%})".replace("-", "−") if before else ""
    return Line(*texts, change, f"{by}{share}")


def _settings(one: Build, other: Build) -> Iterator[Line]:
    before, after = (
        flat(msgspec.to_builtins(one.manifest)),
        flat(msgspec.to_builtins(other.manifest)),
    )
    for name in sorted(before.keys() | after.keys()):
        if name in _NAMES | _APART:
            continue
        a, b = before.get(name, ""), after.get(name, "")
        yield Line(_spoken(name), a, b, "same") if a == b else _changed(name, a, b)


def _changed(name: str, before: str, after: str) -> Line:
    if name in {"output.classes", "provenance.recipe.float_blocks"}:
        return Line(_spoken(name), before, after, "changed", _members(before, after))
    if name.endswith("sha256"):
        before, after = before[:_DIGITS], after[:_DIGITS]
    said = "new" if not before else "gone" if not after else ""
    return Line(_spoken(name), before, after, "changed", said)


def _members(before: str, after: str) -> str:
    """Says what came into a list and what went."""
    a, b = _list(before), _list(after)
    came, went = [each for each in b if each not in a], [each for each in a if each not in b]
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


def _spoken(name: str) -> str:
    return name.removeprefix("provenance.").replace("_", " ").replace(".", " › ")
