"""Pure checks between "the signature holds" and "this may go on my board". No I/O, no clock.

What must hold (Uptane standard, "full verification", section 5.4.4): both repositories agree on
the bytes, nothing is expired, nothing goes back, everything is meant for this device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kedge_shared.errors import TrustError
from kedge_shared.ids import Count, Name
from kedge_shared.manifest import Manifest
from kedge_shared.policy import ModelPolicy
from kedge_shared.protocol import Assignment, ManifestRef

#: Path of the director's public key among the TUF targets.
DIRECTOR_PATH = "director.json"
DIRECTOR_LIMIT_BYTES = 16 * 1024
#: TUF role of a model whose team signs for itself: this and the model's name.
MODEL_ROLE_PREFIX = "model-"


def model_role(model: str) -> str:
    """Returns the TUF role that a model's team signs."""
    return f"{MODEL_ROLE_PREFIX}{model}"


def model_paths(model: str) -> list[str]:
    """Returns the target paths that are a model's own, as TUF patterns (one segment a ``*``)."""
    return [f"models/{model}/policy.json", f"models/{model}/*/*/manifest.json"]


@dataclass(frozen=True, kw_only=True)
class DirectorKey:
    """The offline-signed target that says who may assign.

    Attributes:
        epoch: Grows with each rotation; assignments of an older epoch are refused.
        key: securesystemslib key dictionary with its ``keyid``.
    """

    epoch: Count
    key: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """What stands on the device and no server can change.

    Attributes:
        device: Its identifier.
        key_id: Its key.
        device_class: The one class it takes.
        models: Models it takes; empty takes any.
        workload: The place of the model.
    """

    device: Name
    key_id: str
    device_class: Name
    models: tuple[str, ...]
    workload: Name


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The newest this device has accepted.

    Attributes:
        epoch: Of the director.
        counter: Of assignments.
    """

    epoch: int = 0
    counter: int = 0


def check_assignment(assignment: Assignment, pinned: Pinned, seen: Seen, now: int) -> None:
    """Checks a correctly signed assignment against what the device knows.

    Args:
        assignment: Decoded from a verified envelope.
        pinned: What stands on the device.
        seen: The newest it accepted.
        now: Unix seconds, never below the newest time the device has proof of.

    Raises:
        TrustError: For another device or workload (``device``), of an older epoch or counter
            (``rollback``), expired (``expired``), or an install without a build (``payload``).
    """
    if (assignment.device, assignment.device_key_id) != (pinned.device, pinned.key_id):
        raise TrustError("device", f"assignment is for {assignment.device}, not for this device")
    if assignment.workload != pinned.workload:
        raise TrustError("device", f"assignment is for workload {assignment.workload}")
    if assignment.epoch < seen.epoch:
        raise TrustError("rollback", f"assignment of epoch {assignment.epoch} after {seen.epoch}")
    if assignment.counter < seen.counter:
        raise TrustError(
            "rollback", f"assignment {assignment.counter} after {seen.counter} was accepted"
        )
    if assignment.expires <= now:
        raise TrustError("expired", f"assignment expired {now - assignment.expires} s ago")
    if assignment.manifest is None and assignment.intent != "hold":
        raise TrustError("payload", "assignment names no build")


def check_agreement(ref: ManifestRef, length: int, sha256: str) -> None:
    """Checks that director and image repository speak of the same bytes.

    Raises:
        TrustError: Length or hash differ (``mix``).
    """
    if (ref.length, ref.sha256) != (length, sha256):
        raise TrustError("mix", f"director and image repository disagree on {ref.path}")


def check_manifest(manifest: Manifest, policy: ModelPolicy, path: str, pinned: Pinned) -> None:
    """Checks that a correctly signed manifest is one this device may take.

    Raises:
        TrustError: Its path is another's (``mix``), its class is not the device's (``class``),
            its model is not allowed (``model``), it is older than the policy's floor
            (``rollback``), its runtime is not allowed (``runtime``), or it was left undecided
            and the policy does not take that (``undecided``).
    """
    if manifest.target_path != path:
        raise TrustError("mix", f"manifest of {manifest.target_path} lies at {path}")
    if policy.model != manifest.model:
        raise TrustError("mix", f"policy of {policy.model} with a manifest of {manifest.model}")
    if manifest.device_class != pinned.device_class:
        raise TrustError(
            "class", f"build is for {manifest.device_class}, this device is {pinned.device_class}"
        )
    if pinned.models and manifest.model not in pinned.models:
        raise TrustError("model", f"model {manifest.model} is not on this device's list")
    if manifest.release_counter < policy.min_release_counter:
        raise TrustError(
            "rollback",
            f"release {manifest.release} is older than the policy allows "
            f"({manifest.release_counter} < {policy.min_release_counter})",
        )
    if policy.allowed_runtimes and manifest.runtime.name not in policy.allowed_runtimes:
        raise TrustError("runtime", f"runtime {manifest.runtime.name} is not allowed by the policy")
    if manifest.verdict == "undecided" and not policy.publish_undecided:
        raise TrustError("undecided", "build was left undecided and the policy does not take that")
