"""The model policy: what the model's owners demand, signed offline, whoever built the release."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from kedge_shared import wire
from kedge_shared.errors import InputError
from kedge_shared.ids import Count, Name, Sha256, Share

POLICY_LIMIT_BYTES = 1024 * 1024
#: A golden frame is a photograph, not a film.
FRAME_LIMIT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class LabelledBox:
    """One object on a golden frame.

    Attributes:
        label: Class name.
        x1: Left edge, pixels of the frame.
        y1: Top edge.
        x2: Right edge.
        y2: Bottom edge.
    """

    label: str
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, kw_only=True)
class GoldenFrame:
    """An image with its labels.

    Attributes:
        name: File name (JPEG or PNG).
        sha256: Of the file.
        length: Bytes.
        labels: Every object of the model's classes that is on it.
    """

    name: Name
    sha256: Sha256
    length: Annotated[int, Meta(ge=1, le=FRAME_LIMIT_BYTES)]
    labels: tuple[LabelledBox, ...]


@dataclass(frozen=True, kw_only=True)
class ModelPolicy:
    """What a release of the model must satisfy on every board.

    Attributes:
        schema: Version of this structure.
        model: The line of work it is for.
        version: Of this policy; it only grows.
        accuracy_floor: Least label score (F1 at IoU 0.5 and ``label_conf``) on the golden frames.
        label_conf: Confidence at which the label score is taken.
        golden: The golden frames.
        min_release_counter: Older releases are not accepted any more.
        allowed_runtimes: Empty is: any.
        on_undecided: What a board does when probation ends without enough evidence:
            ``keep-old`` rolls back (not quarantined), ``confirm`` keeps the new engine.
        extend_seconds: So much longer than the board's own limit a probation may go on before
            that; both engines stay in memory meanwhile.
        publish_undecided: Whether a build may be published that its builder could not decide.
        allow_gap: Whether a board without room for two engines may unload the old one first.
        fallback: Release that boards move to whose release was taken back (``kedge yank``);
            ``None`` is the newest rollout that stands.
    """

    schema: Annotated[int, Meta(ge=1, le=1)]
    model: Name
    version: Count
    accuracy_floor: Share
    golden: Annotated[tuple[GoldenFrame, ...], Meta(min_length=1, max_length=256)]
    label_conf: Share = 0.25
    min_release_counter: Count = 0
    allowed_runtimes: tuple[str, ...] = ()
    on_undecided: Literal["keep-old", "confirm"] = "keep-old"
    extend_seconds: Annotated[float, Meta(ge=0, le=30 * 86400)] = 0.0
    publish_undecided: bool = False
    allow_gap: bool = False
    fallback: Name | None = None


def policy_path(model: str) -> str:
    """Returns the TUF target path of a model's policy."""
    return f"models/{model}/policy.json"


def read_policy(data: bytes | memoryview) -> ModelPolicy:
    """Decodes a model policy.

    Raises:
        InputError: Malformed or too large.
    """
    if len(data) > POLICY_LIMIT_BYTES:
        raise InputError(f"model policy is larger than {POLICY_LIMIT_BYTES} bytes")
    return wire.decode(data, ModelPolicy, "model policy")
