"""Sets two releases side by side, from their manifests. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kedge_shared.manifest import Manifest, Measured


@dataclass(frozen=True)
class Difference:
    """One figure or property of two builds for a device class.

    Attributes:
        device_class: What both are for.
        what: The figure: ``engine_bytes``, ``map50_95``, …
        before: Of the first release; ``None`` where it has none.
        after: Of the second; ``None`` where it has none.
        change: Relative, −0.1 for a tenth less; ``None`` where it says nothing: no numbers, or
            measured on different machines.
        note: Why it says nothing.
    """

    device_class: str
    what: str
    before: float | str | None
    after: float | str | None
    change: float | None = None
    note: str = ""


def compare(before: Mapping[str, Manifest], after: Mapping[str, Manifest]) -> Iterator[Difference]:
    """Yields what two releases have for each device class, also where only one has a build.

    Args:
        before: Device class → manifest, of the first release.
        after: The same of the second.
    """
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old is None or new is None:
            yield Difference(name, "build", "there" if old else None, "there" if new else None)
            continue
        yield from _properties(name, old, new)
        yield from _figures(name, old, new)


def _properties(name: str, old: Manifest, new: Manifest) -> Iterator[Difference]:
    sizes = (_size(old), _size(new))
    yield Difference(name, "engine_bytes", *sizes, _ratio(*sizes))
    pairs = {
        "runtime": (_runtime(old), _runtime(new)),
        "input": (_shape(old), _shape(new)),
        "verdict": (old.verdict, new.verdict),
        "overrides": (_overrides(old), _overrides(new)),
        "weights": (old.provenance.weights_sha256[:12], new.provenance.weights_sha256[:12]),
        "data": (old.provenance.data_sha256[:12], new.provenance.data_sha256[:12]),
    }
    for what, (was, now) in pairs.items():
        yield Difference(name, what, was, now, note="same" if was == now else "")


def _figures(name: str, old: Manifest, new: Manifest) -> Iterator[Difference]:
    was = {each.what: each for each in old.measured}
    now = {each.what: each for each in new.measured}
    for what in dict.fromkeys([*was, *now]):
        left, right = was.get(what), now.get(what)
        if left is None or right is None:
            yield Difference(name, what, _value(left), _value(right))
        elif left.machine != right.machine:
            yield Difference(
                name, what, left.value, right.value, note="measured on different machines"
            )
        else:
            change = _ratio(left.value, right.value)
            yield Difference(name, what, left.value, right.value, change)


def _value(figure: Measured | None) -> float | None:
    return None if figure is None else figure.value


def _ratio(before: float, after: float) -> float | None:
    return after / before - 1 if before else None


def _size(manifest: Manifest) -> float:
    return float(sum(each.length for each in manifest.engine_files))


def _runtime(manifest: Manifest) -> str:
    return f"{manifest.runtime.name} {manifest.runtime.range}"


def _shape(manifest: Manifest) -> str:
    return f"{manifest.input.width}x{manifest.input.height}"


def _overrides(manifest: Manifest) -> str:
    return ", ".join(each.budget for each in manifest.overrides) or "none"
