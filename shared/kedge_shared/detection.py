"""Which device class is this board? Pure; the sentences are what the operator reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kedge_shared.device_classes import DeviceClass
from kedge_shared.planfit import told_soc
from kedge_shared.protocol import DeviceFacts
from kedge_shared.resolver import fit, requires


@dataclass(frozen=True)
class Match:
    """One class, held against a board.

    Attributes:
        name: Of the class.
        hardware: The board is one of the class.
        ready: It could take a build now: runtime and versions are there.
        reason: Why, or why not.
    """

    name: str
    hardware: bool
    ready: bool
    reason: str


@dataclass(frozen=True)
class Detected:
    """What a board is.

    Attributes:
        device_class: The class to enrol it with, or ``None``: no class has such a board.
        ready: It could take a build of that class now.
        reason: Why this one, in a sentence.
        others: The other classes, those that fit first, each with its reason.
    """

    device_class: str | None
    ready: bool
    reason: str
    others: tuple[Match, ...]


def detect(facts: DeviceFacts, classes: Iterable[DeviceClass]) -> Detected:
    """Says which class a board is, and why it is none of the others.

    A class that names a SoC or a module goes before one for any computer, what can run now before
    what cannot, a GPU before the processor, and more of its flags before fewer.
    """
    held = [(_specific(each, facts), hold(each, facts)) for each in classes]
    held.sort(key=lambda each: (not each[1].hardware, *each[0], each[1].name))
    matches = [match for _, match in held]
    first = matches[0] if matches and matches[0].hardware else None
    if first is None:
        told = f"no class of the catalogue has a board like {_told(facts)}"
        return Detected(None, False, told, tuple(matches))
    return Detected(first.name, first.ready, first.reason, tuple(matches[1:]))


def hold(device_class: DeviceClass, facts: DeviceFacts) -> Match:
    """Holds one class against a board."""
    name = device_class.name
    lacks = _lacks(device_class, facts)
    if lacks:
        return Match(name, False, False, lacks)
    found = fit(device_class.runtime, requires(device_class), facts)
    parts = [facts.soc, f"module {facts.module}" if device_class.modules else "", facts.arch]
    if facts.sm is not None and (device_class.sm or device_class.plan_sm):
        parts.append(f"SM {facts.sm}")
    parts += [*device_class.cpu_flags, f"{device_class.gpu} GPU" if device_class.gpu else ""]
    told = ", ".join(each for each in parts if each)
    why = found.reason if found.fits else f"not ready: {found.reason}"
    return Match(name, True, found.fits, f"{told}; {why}")


def _lacks(device_class: DeviceClass, facts: DeviceFacts) -> str:
    """Returns what makes a board another kind of board, or an empty string."""
    if device_class.arch and facts.arch not in device_class.arch:
        return f"it is {facts.arch}, not {' or '.join(device_class.arch)}"
    if device_class.soc and facts.soc not in device_class.soc:
        return f"it {told_soc(facts)}, not {' or '.join(device_class.soc)}"
    if device_class.modules and not facts.module.startswith(device_class.modules):
        have = facts.module or "not told"
        return f"its module is {have}, not {' or '.join(device_class.modules)}"
    if device_class.gpu and device_class.gpu not in facts.gpus:
        return f"it has no {device_class.gpu} GPU that the kernel drives"
    if device_class.plan_sm and facts.sm not in device_class.plan_sm:
        wanted = ", ".join(map(str, device_class.plan_sm))
        return f"its GPU's SM is {facts.sm or 'not told'}, not one of {wanted}"
    flags = sorted(set(device_class.cpu_flags) - set(facts.cpu_flags))
    return f"its processor lacks {', '.join(flags)}" if flags else ""


def _specific(device_class: DeviceClass, facts: DeviceFacts) -> tuple[bool, bool, bool, bool, int]:
    return (
        not device_class.modules,
        not device_class.soc,
        not hold(device_class, facts).ready,
        not (device_class.gpu or device_class.plan_sm),
        -len(device_class.cpu_flags),
    )


def _told(facts: DeviceFacts) -> str:
    return ", ".join(each for each in (facts.board, facts.soc, facts.module, facts.arch) if each)
