"""Which artifacts are needed, and what for. Pure.

Two answers of different strictness: :func:`required` is what must be there, or a board cannot do
what it is told; :func:`kept` is what collection leaves alone, and errs on the side of keeping.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from kedge_shared.errors import InputError
from kedge_shared.manifest import Manifest, read_manifest
from kedge_shared.policy import POLICY_LIMIT_BYTES, read_policy

#: Small documents may name artifacts that this version knows nothing of; larger ones are engines.
DOCUMENT_LIMIT_BYTES = 1024 * 1024
_DIGEST = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")

#: Returns a small artifact whole, or ``None`` if it is missing or larger than asked.
Read = Callable[[str, int], "bytes | None"]


@dataclass(frozen=True)
class Build:
    """A build as the database holds it.

    Attributes:
        model: Model.
        release: Release.
        sha256: Of its manifest.
        length: Bytes of its manifest.
        manifest: Its text.
        provenance: Hash of its signed provenance; empty if it has none.
        report: Hash of the published part of its report; empty if it has none.
    """

    model: str
    release: str
    sha256: str
    length: int
    manifest: bytes
    provenance: str = ""
    report: str = ""


@dataclass(frozen=True)
class Known:
    """What the database says that artifacts are needed for.

    Attributes:
        targets: Listed target path → (hash, length).
        builds: Every build that was ever published.
        live: (model, release) of open rollouts and of deployments that are under way.
        assigned: Hash of the manifest → device that is told to have it.
        engines: Hash of the engine → device that reports to run it.
        jobs: Hash → length of what open bench jobs measure.
    """

    targets: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    builds: tuple[Build, ...] = ()
    live: frozenset[tuple[str, str]] = frozenset()
    assigned: Mapping[str, str] = field(default_factory=dict)
    engines: Mapping[str, str] = field(default_factory=dict)
    jobs: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Need:
    """An artifact that must be there.

    Attributes:
        length: Bytes.
        why: What needs it, for people.
    """

    length: int
    why: str


def required(known: Known, read: Read) -> dict[str, Need]:
    """Returns hash → need of every artifact that a board, a job or a publisher may ask for."""
    needs: dict[str, Need] = {}
    listed = {digest for digest, _ in known.targets.values()}
    for path, (digest, length) in known.targets.items():
        needs.setdefault(digest, Need(length, f"target {path}"))
        if path.endswith("/policy.json"):
            _golden(path, read(digest, POLICY_LIMIT_BYTES), needs)
    for build in known.builds:
        manifest = read_manifest(build.manifest)
        why = _wanted(known, build, manifest, listed)
        if not why:
            continue
        needs.setdefault(build.sha256, Need(build.length, why))
        for file in manifest.files:
            needs.setdefault(file.sha256, Need(file.length, f"{file.name} of {why}"))
    for digest, length in known.jobs.items():
        needs.setdefault(digest, Need(length, "a bench job"))
    return needs


def kept(known: Known, read: Read) -> set[str]:
    """Returns every hash that is needed, or named by a document that is.

    Also what only provenance names, and what a reported engine's hash may be of: nothing that
    could be asked for is taken away because this version does not know the document.
    """
    found = {*required(known, read), *known.engines, *known.assigned}
    beside = {digest for each in known.builds for digest in (each.provenance, each.report)}
    found |= beside - {""}
    fresh = set(found)
    while fresh:
        named: set[str] = set()
        for digest in fresh:
            named |= digests_in(read(digest, DOCUMENT_LIMIT_BYTES) or b"")
        fresh = named - found
        found |= fresh
    return found


def digests_in(document: bytes) -> set[str]:
    """Returns everything in a text that may be a SHA-256."""
    return {each.group().decode() for each in _DIGEST.finditer(document)}


def collectable(
    ages: Mapping[str, float], needed: Iterable[str], older_than_seconds: float
) -> list[str]:
    """Returns what may be taken away: not needed, and not used for so long.

    Args:
        ages: Hash → seconds since it was uploaded or asked about by a publisher.
        needed: As :func:`kept`.
        older_than_seconds: An upload is not published at once; until then only its age speaks
            for it.
    """
    keep = set(needed)
    return sorted(
        digest for digest, age in ages.items() if digest not in keep and age > older_than_seconds
    )


def _wanted(known: Known, build: Build, manifest: Manifest, listed: set[str]) -> str:
    """Says what needs a build, or nothing."""
    name = f"{manifest.target_path}"
    if build.sha256 in listed:
        return name
    if (build.model, build.release) in known.live:
        return f"{name} (rolled out)"
    if build.sha256 in known.assigned:
        return f"{name} (assigned to {known.assigned[build.sha256]})"
    engine = next((each.sha256 for each in manifest.files if each.sha256 in known.engines), None)
    return f"{name} (runs on {known.engines[engine]})" if engine else ""


def _golden(path: str, body: bytes | None, needs: dict[str, Need]) -> None:
    if body is None:
        return
    try:
        policy = read_policy(body)
    except InputError:
        return  # the bytes are not those of the name, which is found by their hash
    for frame in policy.golden:
        needs.setdefault(frame.sha256, Need(frame.length, f"golden frame of {path}"))
