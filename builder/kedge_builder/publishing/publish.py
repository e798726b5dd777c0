"""Signs builds as TUF targets and brings them to the server (``kedge publish``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from kedge_builder.publishing.durable import write_synced
from kedge_builder.publishing.excerpt import excerpt
from kedge_builder.publishing.keyring import Keyring
from kedge_builder.publishing.origin import PROVENANCE, SEALED, read_statement
from kedge_builder.publishing.repository import TrustedState
from kedge_builder.publishing.rotation import Standing, add_targets, delegated, next_of
from kedge_shared import api, wire
from kedge_shared.attachments import PROVENANCE as ORIGIN
from kedge_shared.attachments import REPORT, custom_of
from kedge_shared.client import Client
from kedge_shared.errors import InputError
from kedge_shared.ids import sha256_hex
from kedge_shared.manifest import MANIFEST_LIMIT_BYTES, FileRef, Manifest, read_manifest
from kedge_shared.policy import (
    POLICY_LIMIT_BYTES,
    GoldenFrame,
    ModelPolicy,
    policy_path,
    read_policy,
)
from kedge_shared.statement import IN_TOTO_TYPE
from kedge_shared.trust import model_role

#: Called with (bytes sent so far, bytes in all, name of the file).
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Bundle:
    """Everything one publication brings.

    Attributes:
        targets: TUF target path → bytes: manifests and the model policy.
        files: Hash → file, of everything that boards download.
        folders: TUF target path of a manifest → folder of its build.
        reports: TUF target path of a manifest → the published part of its report, if it has one.
        model: Model.
        release: Release.
    """

    targets: dict[str, bytes]
    files: dict[str, Path]
    folders: dict[str, Path]
    reports: dict[str, bytes]
    model: str
    release: str


def gather(builds: Sequence[Path], policy_file: Path | None = None) -> Bundle:
    """Reads builds and the model policy and checks that everything is there, byte for byte.

    Args:
        builds: Folders that ``kedge build`` wrote: of one class, or the one that holds them.
        policy_file: Model policy; by default ``policy/policy.json`` beside the builds.

    Raises:
        InputError: Something is missing, altered, of different releases, or over its budget.
    """
    folders = [each for build in builds for each in _class_folders(build)]
    manifests = {folder: _read_build(folder) for folder in folders}
    releases = {(each.model, each.release) for each in manifests.values()}
    if len(releases) != 1:
        raise InputError("builds are of different releases", "publish one release at a time")
    targets: dict[str, bytes] = {}
    files: dict[str, Path] = {}
    reports: dict[str, bytes] = {}
    for folder, manifest in manifests.items():
        body = targets[manifest.target_path] = _manifest_bytes(folder)
        if report := excerpt(folder, manifest, sha256_hex(body)):
            reports[manifest.target_path] = report
        files |= {ref.sha256: _checked(folder / ref.name, ref) for ref in manifest.files}
    policy_at = policy_file or folders[0].parent / "policy" / "policy.json"
    policy_bytes = wire.read_limited(policy_at, "model policy", POLICY_LIMIT_BYTES)
    policy = read_policy(policy_bytes)
    model, release = releases.pop()
    _check_policy(policy, list(manifests.values()))
    targets[policy_path(model)] = policy_bytes
    golden = policy_at.parent / "golden"
    files |= {frame.sha256: _checked(golden / frame.name, frame) for frame in policy.golden}
    places = {manifest.target_path: folder for folder, manifest in manifests.items()}
    return Bundle(targets, files, places, reports, model, release)


def publish(
    bundle: Bundle,
    client: Client,
    state: TrustedState,
    ring: Keyring,
    progress: Progress,
    scratch: Path,
) -> api.RepositoryState:
    """Uploads what the server lacks, signs the next targets and offers them.

    Args:
        bundle: From :func:`gather`.
        client: To the server.
        state: This publisher's trusted state.
        ring: Holds the keys of the model's team, or of targets where the model has no team.
        progress: Told of the upload.
        scratch: Folder for the target files while they are uploaded.

    Raises:
        TrustError: The server's repository is not the one this publisher trusts.
        ServiceError: The server is down, or somebody published in between.
    """
    standing = state.standing()
    sealed = seal_provenance(standing, bundle, ring)
    following = sign_release(standing, bundle, ring, sealed)
    files = dict(bundle.files)
    for data in (*bundle.targets.values(), *bundle.reports.values(), *sealed.values()):
        digest = sha256_hex(data)
        files[digest] = scratch / digest
        files[digest].write_bytes(data)
    _upload(files, client, progress)
    found = client.publish_metadata(following)
    for path, data in sealed.items():
        write_synced(bundle.folders[path] / SEALED, data)
    return found


def sign_release(
    standing: Standing, bundle: Bundle, ring: Keyring, sealed: Mapping[str, bytes] | None = None
) -> dict[str, bytes]:
    """Returns the metadata that lists a release: its model's, or targets.

    Args:
        standing: What stands now.
        bundle: What is published.
        ring: Keys at hand.
        sealed: Target path → signed provenance of that build.

    Raises:
        InputError: A published build would change, or too few of the keys are at hand.
    """
    name = _role_of(standing, bundle.model)
    following = next_of(standing, name, datetime.now(timezone.utc))
    beside = {ORIGIN: sealed or {}, REPORT: bundle.reports}
    custom = {
        path: custom_of({name: held[path] for name, held in beside.items() if path in held})
        for path in bundle.folders
    }
    add_targets(following, bundle.targets, custom)
    ring.sign(following, name, standing.role(name))
    return {name: following.to_bytes()}


def seal_provenance(standing: Standing, bundle: Bundle, ring: Keyring) -> dict[str, bytes]:
    """Signs where each build came from with the keys that list it.

    Returns:
        Target path → DSSE envelope; a build of an older builder has none.

    Raises:
        InputError: A statement is of another build, or none of the keys is at hand.
    """
    role = standing.role(_role_of(standing, bundle.model))
    found = {}
    for path, folder in bundle.folders.items():
        if (folder / PROVENANCE).is_file():
            statement = read_statement(folder)
            if sha256_hex(bundle.targets[path]) not in statement.digests:
                raise InputError(f"{folder / PROVENANCE} is of another build", "build it again")
            found[path] = ring.seal(wire.encode(statement), IN_TOTO_TYPE, role)
    return found


def _role_of(standing: Standing, model: str) -> str:
    team = model_role(model)
    return team if team in delegated(standing.targets) else "targets"


def _upload(files: dict[str, Path], client: Client, progress: Progress) -> None:
    wanted = {sha256: path for sha256, path in files.items() if not client.has_artifact(sha256)}
    total = sum(path.stat().st_size for path in wanted.values())
    done = 0
    for sha256, path in wanted.items():

        def sent(count: int, name: str = path.name) -> None:
            nonlocal done
            done += count
            progress(done, total, name)

        client.upload(path, sha256, sent)


def _class_folders(build: Path) -> list[Path]:
    if (build / "manifest.json").is_file():
        return [build]
    found = sorted(each.parent for each in build.glob("*/manifest.json"))
    missed = sorted(
        each.parent.name
        for each in build.glob("*/report.json")
        if not (each.parent / "manifest.json").is_file()
    )
    if missed:
        raise InputError(
            f"build of {', '.join(missed)} missed its budget and has no manifest",
            "build it again with --override BUDGET=REASON, or name the folders that passed",
        )
    if not found:
        raise InputError(f"{build} holds no build", "name a folder that `kedge build` wrote")
    return found


def _manifest_bytes(folder: Path) -> bytes:
    return wire.read_limited(folder / "manifest.json", "manifest", MANIFEST_LIMIT_BYTES)


def _read_build(folder: Path) -> Manifest:
    return read_manifest(_manifest_bytes(folder))


def _checked(path: Path, ref: FileRef | GoldenFrame) -> Path:
    data = wire.read_limited(path, "file", ref.length)
    if len(data) != ref.length or sha256_hex(data) != ref.sha256:
        raise InputError(f"{path} is not the file its manifest describes", "build it again")
    return path


def _check_policy(policy: ModelPolicy, manifests: Sequence[Manifest]) -> None:
    for manifest in manifests:
        if policy.model != manifest.model:
            raise InputError(f"policy of {policy.model} cannot go with model {manifest.model}")
        if manifest.verdict == "undecided" and not policy.publish_undecided:
            raise InputError(
                f"build for {manifest.device_class} is undecided and its policy forbids that",
                "build with more images, or with --override undecided=REASON",
            )
        if manifest.release_counter < policy.min_release_counter:
            raise InputError(
                f"release counter {manifest.release_counter} is under the policy's "
                f"{policy.min_release_counter}",
                "boards would refuse it",
            )
