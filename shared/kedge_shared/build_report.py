"""What people read of a build beside its manifest: the published part of the builder's report.

``kedge publish`` cuts it out of ``report.json``, and the signed targets list it by hash
(:mod:`kedge_shared.attachments`). Everything is bounded: texts, rows, numbers. Texts are text;
whoever shows them escapes them.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from kedge_shared import wire
from kedge_shared.attachments import LIMITS_BYTES, REPORT
from kedge_shared.errors import InputError, TrustError
from kedge_shared.ids import Count, Sha256, Share

WORD_MOST, SENTENCE_MOST = 200, 600
SENTENCES_MOST, CLASSES_MOST, CANDIDATES_MOST, POINTS_MOST = 50, 1000, 100, 400
LAYERS_MOST, BLOCKS_MOST = 4000, 500

Word = Annotated[str, Meta(max_length=WORD_MOST)]
Sentence = Annotated[str, Meta(max_length=SENTENCE_MOST)]
#: A difference of two shares.
Change = Annotated[float, Meta(ge=-1, le=1)]
#: Milliseconds, or of them; at most two hours.
Span = Annotated[float, Meta(ge=-7.2e6, le=7.2e6)]

Amount = Annotated[float, Meta(ge=-1e9, le=1e9)]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of one engine on the gate images; ``None``: not measured."""

    map50: Share
    map50_95: Share
    latency_p50_ms: Span | None
    latency_p95_ms: Span | None
    size_bytes: Count


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """mAP50-95 of float minus that of the built engine, a fraction.

    Attributes:
        estimate: It.
        low: Lower end of its 95 % interval.
        high: Upper end.
        per_class: Class → the same of its average precision.
    """

    estimate: Change
    low: Change | None
    high: Change | None
    per_class: Annotated[dict[Word, Change], Meta(max_length=CLASSES_MOST)]


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An engine that was measured on the select images.

    Attributes:
        name: Of its plan.
        map50_95: It.
        drop: Against float, a fraction.
        size_bytes: Of its files.
        taken: It is the one that was built.
    """

    name: Word
    map50_95: Share
    drop: Change
    size_bytes: Count
    taken: bool


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """A node of the float graph and what became of it.

    Attributes:
        name: In the ONNX graph.
        operator: Its kind.
        precision: ``float``, ``int8`` or what else the builder calls it.
        reason: Why.
        block: That mixed precision switches it with; empty in the float zone.
    """

    name: Word
    operator: Word
    precision: Word
    reason: Sentence
    block: Word


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """What leaving a block float does; ``ms_added`` is ``None`` where it was not measured."""

    block: Word
    distortion_saved: Amount
    points_gained: Amount
    ms_added: Span | None


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A point that a search measured on the select images.

    Attributes:
        title: What it is.
        map50_95: It.
        latency_p50_ms: Median of frame time.
        size_bytes: Of its files.
        front: No other is better in everything.
        feasible: It keeps every budget.
        picked: It is the one that was built.
        baseline: It is the one that the others are held against.
        why: What it misses; empty if nothing.
    """

    title: Word
    map50_95: Share
    latency_p50_ms: Span
    size_bytes: Count
    front: bool
    feasible: bool
    picked: bool
    baseline: bool
    why: Sentence


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """What was searched.

    Attributes:
        goal: ``fastest``, ``smallest`` or ``most-accurate``.
        reason: Why the pick.
        measured: Points that were.
        failed: Points that could not be built.
        points: Measured ones; where there are too many, the front and the nearest to it.
    """

    goal: Word
    reason: Sentence
    measured: Count
    failed: Count
    points: Annotated[tuple[Point, ...], Meta(max_length=POINTS_MOST)]


class BuildReport(msgspec.Struct, frozen=True, kw_only=True):
    """The published part of a build's report.

    Attributes:
        schema: Of this document.
        manifest: Hash of the manifest of the build that it tells of.
        reasons: What the gate said, sentence by sentence.
        notes: What else the builder said.
        images: Gate images.
        before: The float model.
        built: The built engine.
        loss: What the build cost in accuracy.
        plan: How it was quantized.
        why: Why so.
        form: How its numbers are written.
        candidates: Engines among which it was chosen.
        layers: Nodes that compute, in the order of the graph.
        layers_in_all: How many there are; more than ``layers`` where they were too many.
        sensitivity: What leaving blocks float does.
        search: ``None`` where nothing was searched.
    """

    schema: Literal[1]
    manifest: Sha256
    reasons: Annotated[tuple[Sentence, ...], Meta(max_length=SENTENCES_MOST)]
    notes: Annotated[tuple[Sentence, ...], Meta(max_length=SENTENCES_MOST)]
    images: Count
    before: Figures
    built: Figures
    loss: Loss
    plan: Word
    why: Sentence
    form: Word
    candidates: Annotated[tuple[Candidate, ...], Meta(max_length=CANDIDATES_MOST)]
    layers: Annotated[tuple[Layer, ...], Meta(max_length=LAYERS_MOST)]
    layers_in_all: Count
    sensitivity: Annotated[tuple[Block, ...], Meta(max_length=BLOCKS_MOST)]
    search: Search | None = None


def read_build_report(data: bytes, manifest_sha256: str) -> BuildReport:
    """Reads a published report.

    Args:
        data: Its bytes.
        manifest_sha256: Of the build that it has to be of.

    Raises:
        InputError: It is too large, malformed, or out of bounds.
        TrustError: It is of another build (``mix``).
    """
    if len(data) > LIMITS_BYTES[REPORT]:
        raise InputError(f"report is larger than {LIMITS_BYTES[REPORT]} bytes")
    found = wire.decode(data, BuildReport, "report")
    if found.manifest != manifest_sha256:
        raise TrustError("mix", "the report is of another build")
    return found
