"""Takes releases out of signed targets, after checking that everything they need is here."""

from __future__ import annotations

import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, select
from tuf.api.metadata import TargetFile

from kedge_server.artifacts.store import Store
from kedge_server.audit.service import record
from kedge_server.errors import ConflictError, NotFoundError, RequestError
from kedge_server.events import kinds
from kedge_server.events.service import emit
from kedge_server.releases.tables import BuildRow, ReleaseRow
from kedge_shared import attachments
from kedge_shared.api import BuildInfo, ReleaseInfo
from kedge_shared.build_report import read_build_report
from kedge_shared.errors import InputError, TrustError
from kedge_shared.manifest import MANIFEST_LIMIT_BYTES, Manifest, read_manifest
from kedge_shared.policy import POLICY_LIMIT_BYTES, ModelPolicy, policy_path, read_policy
from kedge_shared.provenance import peek_provenance
from kedge_shared.statement import read_envelope


def index(
    session: Session,
    store: Store,
    listed: Mapping[str, str],
    targets: Mapping[str, TargetFile],
    who: str,
) -> None:
    """Checks and stores every manifest that is new among the targets.

    Args:
        session: Of the publication.
        store: Artifacts.
        listed: Target path → hash.
        targets: As signed.
        who: Publishes.

    Raises:
        RequestError: A file is missing or has another length, a manifest is malformed or lies
            elsewhere than it says, or its policy does not take it.
        ConflictError: A published build would change.
    """
    for path, digest in listed.items():
        if not store.claim(digest, targets[path].length):
            raise RequestError(f"target {path} was not uploaded", "upload its bytes first")
    for path, digest in listed.items():
        if path.endswith("/manifest.json"):
            beside = _beside(store, path, digest, targets[path])
            _index_build(session, store, listed, path, digest, who, beside)


@dataclass(frozen=True)
class _Beside:
    """Hashes of what is listed beside a manifest; empty where it is not.

    Attributes:
        provenance: Signed statement of its origin.
        report: Published part of the builder's report.
    """

    provenance: str
    report: str


def _beside(store: Store, path: str, digest: str, target: TargetFile) -> _Beside:
    """Returns what is listed beside a manifest: it must be here, and of this build.

    Whose signature of the provenance counts is for those who read it.
    """
    try:
        found = {
            name: (named.sha256, _read(store, path, name, named))
            for name, named in attachments.all_listed_in(target.custom).items()
        }
        origin, origin_body = found.get(attachments.PROVENANCE, ("", b""))
        report, report_body = found.get(attachments.REPORT, ("", b""))
        if origin:
            peek_provenance(read_envelope(origin_body, "provenance"), digest)
        if report:
            read_build_report(report_body, digest)
    except (InputError, TrustError) as error:
        raise RequestError(f"{path}: {error}") from None
    return _Beside(origin, report)


def _read(store: Store, path: str, name: str, named: attachments.Listed) -> bytes:
    if not store.has(named.sha256) or store.length(named.sha256) != named.length:
        raise RequestError(f"{name} of {path} was not uploaded", "upload its bytes first")
    return store.read(named.sha256, attachments.LIMITS_BYTES[name])


def _index_build(
    session: Session, store: Store, listed: Mapping[str, str], path: str, digest: str,
    who: str, beside: _Beside,
) -> None:  # fmt: skip
    body = store.read(digest, MANIFEST_LIMIT_BYTES)
    try:
        manifest = read_manifest(body)
        policy = _policy_of(manifest, store, listed)
    except InputError as error:
        raise RequestError(f"{path}: {error}") from None
    if manifest.target_path != path:
        raise RequestError(f"manifest of {manifest.target_path} lies at {path}")
    key = (manifest.model, manifest.release, manifest.device_class)
    known = session.get(BuildRow, key)
    if known is not None:
        if known.manifest_sha256 != digest:
            raise ConflictError(f"{path} is published already", "give the release a new version")
        known.provenance = beside.provenance or known.provenance
        known.report = beside.report or known.report
        return
    _check_complete(manifest, policy, store, path)
    release = session.get(ReleaseRow, key[:2])
    if release is None:
        release = ReleaseRow(
            model=manifest.model, release=manifest.release,
            release_counter=manifest.release_counter, published=time.time(),
        )  # fmt: skip
    elif release.release_counter != manifest.release_counter:
        raise RequestError(f"{path}: release {manifest.release} has another counter already")
    session.add(release)
    session.add(
        BuildRow(
            model=manifest.model, release=manifest.release, device_class=manifest.device_class,
            manifest_path=path, manifest_sha256=digest, manifest_length=len(body), manifest=body,
            provenance=beside.provenance, report=beside.report,
        )
    )  # fmt: skip
    accepted = ", ".join(each.budget for each in manifest.overrides)
    record(session, who, "publish", path, f"overridden: {accepted}" if accepted else "")
    subject = f"{manifest.model} {manifest.release}"
    data = {"model": manifest.model, "release": manifest.release, "who": who,
            "device_class": manifest.device_class, "verdict": manifest.verdict}  # fmt: skip
    emit(session, kinds.RELEASE_PUBLISHED, subject, data, time.time())


def _policy_of(manifest: Manifest, store: Store, listed: Mapping[str, str]) -> ModelPolicy:
    digest = listed.get(policy_path(manifest.model))
    if digest is None:
        raise InputError(f"model {manifest.model} has no policy among the targets")
    return read_policy(store.read(digest, POLICY_LIMIT_BYTES))


def _check_complete(manifest: Manifest, policy: ModelPolicy, store: Store, path: str) -> None:
    needed = [(each.sha256, each.length) for each in manifest.files]
    needed += [(each.sha256, each.length) for each in policy.golden]
    for digest, length in needed:
        if not store.claim(digest, length):
            raise RequestError(f"{path} needs artifact {digest[:12]}, which was not uploaded")
    if manifest.verdict == "undecided" and not policy.publish_undecided:
        raise RequestError(f"{path} is undecided and its policy does not take that")


def builds(session: Session, model: str, release: str) -> dict[str, BuildRow]:
    """Returns a release's builds by device class.

    Raises:
        NotFoundError: There is no such release.
    """
    query = select(BuildRow).where(BuildRow.model == model, BuildRow.release == release)
    found = {each.device_class: each for each in session.exec(query)}
    if not found:
        raise NotFoundError(f"there is no release {model} {release}", "`kedge release list`")
    return found


def all_releases(session: Session, listed: Container[str]) -> list[ReleaseInfo]:
    """Returns every release, newest first.

    Args:
        session: Of the request.
        listed: Target paths that are signed now.
    """
    rows = session.exec(select(ReleaseRow).order_by(col(ReleaseRow.published).desc())).all()
    return [
        _info(row, list(builds(session, row.model, row.release).values()), listed) for row in rows
    ]


def one_release(session: Session, model: str, release: str, listed: Container[str]) -> ReleaseInfo:
    """Returns one release; arguments as :func:`all_releases`.

    Raises:
        NotFoundError: There is no such release.
    """
    found = list(builds(session, model, release).values())
    row = session.get(ReleaseRow, (model, release))
    if row is None:
        raise NotFoundError(f"there is no release {model} {release}")
    return _info(row, found, listed)


def _info(row: ReleaseRow, found: Sequence[BuildRow], listed: Container[str]) -> ReleaseInfo:
    return ReleaseInfo(
        model=row.model, release=row.release, release_counter=row.release_counter,
        published=row.published, builds=tuple(_build(each) for each in found),
        taken_back=not any(each.manifest_path in listed for each in found),
    )  # fmt: skip


def _build(row: BuildRow) -> BuildInfo:
    manifest = read_manifest(row.manifest)
    return BuildInfo(
        device_class=row.device_class, manifest_path=row.manifest_path,
        manifest_sha256=row.manifest_sha256, engine=manifest.engine_hash,
        size_bytes=sum(each.length for each in manifest.files), verdict=manifest.verdict,
        overrides=tuple(f"{each.budget}: {each.reason}" for each in manifest.overrides),
        provenance=row.provenance, report=row.report,
    )  # fmt: skip
