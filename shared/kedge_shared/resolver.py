"""Which form of a build does this board run? Pure; the server asks before sending, the agent again.

A build for ONNX Runtime or OpenVINO is loaded as it is. Where a runtime runs plans, the first of
these that fits is taken: an exact plan, a version-compatible one, building it on the board from the
signed ONNX, the fallback that the release declares; else the board is refused, with every reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kedge_shared.device_classes import DeviceClass, RuntimeRange
from kedge_shared.manifest import Manifest, Requires
from kedge_shared.planfit import (
    BUILDERS,
    against,
    buildable,
    cache_fits,
    cuda_majors,
    told_soc,
)
from kedge_shared.plans import PLANNED, Plan
from kedge_shared.protocol import DeviceFacts
from kedge_shared.versions import in_range

#: How a board gets at an engine.
Way = Literal["engine", "exact-plan", "compatible-plan", "build", "fallback", "refused"]

#: What an agent must be able to do for a way (DeviceFacts.ways), and what is said if it cannot.
_NEEDS: dict[Way, tuple[str, str]] = {
    "compatible-plan": ("lean", "cannot load version-compatible plans"),
    "build": ("build", "cannot build plans on the board"),
    "fallback": ("fallback", "takes no fallback"),
}
#: What is not told → how to have it told.
_MENDS = {"Jetson Linux": " (in a container: mount /etc/nv_tegra_release)"}
#: Reasons that one sentence bears.
_REASONS = 4


@dataclass(frozen=True)
class Fit:
    """The answer, with the sentence that explains it.

    Attributes:
        fits: Whether the board can run the build.
        reason: Why, or why not.
        way: How it gets at an engine.
        file: SHA-256 of the file that is loaded, or built from; empty if refused.
        timing_cache: SHA-256 of the timings to build with, or ``None``.
    """

    fits: bool
    reason: str
    way: Way = "refused"
    file: str = ""
    timing_cache: str | None = None


def resolve(manifest: Manifest, facts: DeviceFacts) -> Fit:
    """Says how a board of ``facts`` runs a build, or why it does not."""
    reasons: list[str] = []
    for found in _candidates(manifest, facts):
        lacking = _lacking(found, manifest, facts) if found.fits else found.reason
        if not lacking:
            because = f" because {_joined(reasons)}" if reasons and found.way != "engine" else ""
            return replace(found, reason=found.reason + because)
        reasons.append(lacking)
    return Fit(False, _joined(reasons))


def lost(manifest: Manifest, facts: DeviceFacts) -> bool:
    """Says whether what a board lacks for a build is the board's trouble and not the build's.

    The server sends to boards that had the runtime, and a CUDA where plans want one: what is gone
    since, or does not answer, speaks against no release.
    """
    name = manifest.runtime.name
    return name not in facts.runtimes or (name in BUILDERS and not cuda_majors(facts))


def fit(runtime: RuntimeRange, requires: Requires, facts: DeviceFacts) -> Fit:
    """Says whether a board has a runtime in its range and everything that is required."""
    version = facts.runtimes.get(runtime.name)
    if version is None:
        return Fit(False, _absent(runtime.name, facts))
    if not in_range(version, runtime.range):
        return Fit(False, f"{runtime.name} {version} is outside {runtime.range}")
    missing = _missing(requires, facts)
    return Fit(not missing, missing or f"{runtime.name} {version} satisfies {runtime.range}")


def requires(device_class: DeviceClass) -> Requires:
    """Returns what a build for a class asks of a board."""
    return Requires(
        arch=device_class.arch, cpu_flags=device_class.cpu_flags, sm=device_class.sm,
        soc=device_class.soc, l4t=device_class.l4t, drivers=device_class.drivers,
    )  # fmt: skip


def _candidates(manifest: Manifest, facts: DeviceFacts) -> Iterator[Fit]:
    """Yields what a board could do with a build, the best first, and why it could not."""
    loads = fit(manifest.runtime, manifest.requires, facts)
    if not loads.fits:
        yield loads
    elif manifest.runtime.name not in PLANNED:
        yield replace(loads, way="engine", file=manifest.engine_hash)
    else:
        yield from _plans(manifest, facts)
        yield _built(manifest, facts)
    if manifest.fallback is not None:
        found = fit(manifest.fallback.runtime, manifest.fallback.requires, facts)
        name = manifest.fallback.runtime.name
        if not found.fits:
            yield Fit(False, f"fallback {name}: {found.reason}")
        else:
            yield Fit(True, f"falls back to {name}", "fallback", manifest.engine_hash)


def _plans(manifest: Manifest, facts: DeviceFacts) -> Iterator[Fit]:
    for plan in sorted(manifest.plans, key=lambda each: each.version_compatible):
        way: Way = "compatible-plan" if plan.version_compatible else "exact-plan"
        why = against(plan, facts)
        yield Fit(False, why) if why else Fit(True, _told(plan, facts), way, plan.file)


def _told(plan: Plan, facts: DeviceFacts) -> str:
    place = f"SM {facts.sm}" if plan.sm else facts.soc
    if plan.version_compatible:
        return (
            f"version-compatible plan of {plan.runtime} {plan.version} runs on "
            f"{facts.runtimes[plan.runtime]}, {place}"
        )
    return f"plan of {plan.runtime} {plan.version} for {place} is exactly this board's"


def _built(manifest: Manifest, facts: DeviceFacts) -> Fit:
    runtime, engine = manifest.runtime.name, manifest.engine_hash
    if any(plan.file == engine for plan in manifest.plans):
        return Fit(False, "the release brings no ONNX to build from")
    why = buildable(runtime, manifest.on_device, facts)
    if why:
        return Fit(False, why)
    fitting = (each for each in manifest.timing_caches if cache_fits(each, runtime, facts))
    cache = next((each.file for each in fitting), None)
    timings = "with the class's timing cache" if cache else "without a timing cache"
    version = facts.runtimes[runtime]
    told = f"{runtime} {version} builds it on the board from the signed ONNX, {timings}"
    return Fit(True, told, "build", engine, cache)


def _lacking(found: Fit, manifest: Manifest, facts: DeviceFacts) -> str:
    """Returns what the agent on the board cannot do for this way; empty if nothing."""
    need, told = _NEEDS.get(found.way, ("", ""))
    if need and need not in facts.ways:
        return f"agent {facts.agent or 'of unknown version'} {told}"
    if found.file != manifest.engine_hash and "plans" not in facts.ways:
        return f"agent {facts.agent or 'of unknown version'} cannot choose among plans"
    return ""


def _joined(reasons: Sequence[str]) -> str:
    told = list(dict.fromkeys(reasons))
    more = f"; and {len(told) - _REASONS} more" if len(told) > _REASONS else ""
    return "; ".join(told[:_REASONS]) + more


def _absent(runtime: str, facts: DeviceFacts) -> str:
    """Says that a runtime is missing: from the board, or from the agent alone."""
    on_disk = facts.libraries.get(runtime)
    if on_disk is None:
        return f"runtime {runtime} is not on the board"
    agent = facts.agent or "of unknown version"
    return f"{runtime} {on_disk} is on the board, but agent {agent} has no runtime that loads it"


def _missing(requires: Requires, facts: DeviceFacts) -> str:
    """Returns what the board lacks, or an empty string."""
    if requires.arch and facts.arch not in requires.arch:
        return f"board is {facts.arch}, build needs {' or '.join(requires.arch)}"
    if requires.soc and facts.soc not in requires.soc:
        return f"build is for {' or '.join(requires.soc)}, the board {told_soc(facts)}"
    if requires.sm is not None and facts.sm != requires.sm:
        return f"build is for SM {requires.sm}, board has {facts.sm or 'no GPU'}"
    flags = sorted(set(requires.cpu_flags) - set(facts.cpu_flags))
    if flags:
        return f"processor lacks {', '.join(flags)}"
    if requires.memory_mb is not None and facts.memory_mb < requires.memory_mb:
        return f"needs {requires.memory_mb:.0f} MiB, board has {facts.memory_mb:.0f}"
    return _outside(requires, facts)


def _outside(requires: Requires, facts: DeviceFacts) -> str:
    """Returns which version is missing or out of its range, or an empty string.

    A driver that is there and whose version cannot be read is not wrong by itself: loading tells.
    """
    ranges = [
        ("Jetson Linux", facts.l4t or None, requires.l4t),
        ("Python", facts.python or None, requires.python),
        *(
            (f"driver {name}", facts.drivers.get(name), bounds)
            for name, bounds in sorted(requires.drivers.items())
        ),
    ]
    for name, have, bounds in ranges:
        if bounds and have is None:
            return f"{name} {bounds} is required, the board tells none{_MENDS.get(name, '')}"
        if bounds and have and not in_range(have, bounds):
            return f"{name} {have} is outside {bounds}"
    return ""
