"""Attestations as text and as JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text
from securesystemslib.signer import Key

from kedge_server.operator.show import print_json, print_table
from kedge_shared import signing
from kedge_shared.attestation import AttestationInfo, Running, open_running
from kedge_shared.errors import TrustError, one_line
from kedge_shared.statement import Statement

_console = Console()


@dataclass(frozen=True)
class Checked:
    """An attestation, checked on this machine.

    Attributes:
        said: What it says; ``None`` if it does not hold.
        key_id: Of the key that it was checked with.
        pinned: That key was given here; else the server named it.
        wrong: Why it does not hold; empty if it does.
    """

    said: Statement[Running] | None
    key_id: str
    pinned: bool
    wrong: str

    @classmethod
    def of(cls, found: AttestationInfo, pinned: Key | None) -> Checked:
        """Checks with the key that was given, or the one that the server names."""
        key_id = pinned.keyid if pinned else str(found.key.get("keyid", ""))
        try:
            key = pinned or signing.key_from_dict(found.key)
            said = open_running(found.envelope, key)
        except TrustError as error:
            return cls(None, key_id, pinned is not None, str(error))
        return cls(said, key_id, pinned is not None, found.refused)


def attestation(found: Sequence[AttestationInfo], checked: Checked, *, as_json: bool) -> None:
    """Shows the newest attestation, and that there are older ones."""
    if as_json:
        print_json({"checked": checked, "attestations": found})
        return
    for line in lines(found[0], checked):
        _print(line)
    rows = [
        (_when(each.received), each.event, each.release, each.engine[:12],
         each.refused or ("published" if each.published else "not known here"))
        for each in found[1:]
    ]  # fmt: skip
    if rows:
        print_table("Before", ("received", "event", "release", "engine", "checked"), rows, "")


def newest(found: Sequence[AttestationInfo]) -> None:
    """Shows the newest attestation, checked with the key that the server names."""
    if not found:
        _console.print("Attested: nothing yet.")
        return
    for line in lines(found[0], Checked.of(found[0], None)):
        _print(line)


def statement(said: Statement[Running], *, as_json: bool) -> None:
    """Shows what a signed statement says."""
    if as_json:
        print_json(said)
        return
    for line in _said(said):
        _print(line)


def lines(found: AttestationInfo, checked: Checked) -> Iterator[str]:
    """Yields what an operator reads of an attestation."""
    if checked.said is None or checked.wrong:
        yield f"{found.device}: the attestation of {_when(found.received)} does not hold"
        yield f"  {checked.wrong}"
        return
    yield from _said(checked.said)
    whose = "given here" if checked.pinned else "as the server has it"
    yield f"  signature: holds, key {checked.key_id[:12]} ({whose})"
    known = "published here" if found.published else "not known to this server"
    yield f"  build: {known}; received {_when(found.received)}"


def _print(line: str) -> None:
    """Prints one line as it is: a hash that is wrapped cannot be copied."""
    indent = line[: len(line) - len(line.lstrip(" "))]
    _console.print(Text(indent + one_line(line)), soft_wrap=True)


def _said(said: Statement[Running]) -> Iterator[str]:
    running = said.predicate
    yield (
        f"{running.device} ({running.device_class}) runs {running.model} {running.release} "
        f"since {running.event} {running.deployment}"
    )
    for each in said.subject:
        yield f"  {each.name}: {each.digest.get('sha256', 'no SHA-256')}"
    yield f"  manifest: {running.manifest_path} {running.manifest_sha256}"
    yield f"  verdict: {running.verdict.code}, evidence {running.verdict.evidence_sha256[:12]}"
    figures = ", ".join(f"{key} {value:g}" for key, value in running.health.items())
    yield f"  health: {figures or 'no figures'}"
    runtimes = ", ".join(f"{key} {value}" for key, value in sorted(running.runtimes.items()))
    yield f"  agent {running.agent or 'unknown'}; {runtimes or 'no runtime'}"
    yield (
        f"  assignment {running.counter} of epoch {running.epoch}; not before "
        f"{_when(running.not_before)}, by its own clock {_when(running.clock)}"
    )


def _when(moment: float) -> str:
    # Beyond what a calendar has, a board's clock or server is lying: show the number.
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))
    except (OverflowError, ValueError, OSError):
        return f"{moment:g} s"
