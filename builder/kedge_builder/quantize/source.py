"""What is quantized and with which data: shared by every way of doing it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

from kedge_builder.data.datasets import Data, Sample
from kedge_builder.quantize.blocks import Block, blocks_of
from kedge_builder.quantize.floatzone import FloatZone
from kedge_shared.detections import Array
from kedge_shared.ids import sha256_hex
from kedge_shared.manifest import InputSpec, OutputSpec
from kedge_shared.vision import prepare

Split: TypeAlias = Literal["select", "gate"]


@dataclass(frozen=True)
class Source:
    """A float model at one input size.

    Attributes:
        path: The ONNX file.
        onnx: The same, prepared and named.
        zone: What stays float.
        given: Input of the engine.
        read: How its output is read.
    """

    path: Path
    onnx: Any
    zone: FloatZone
    given: InputSpec
    read: OutputSpec

    @cached_property
    def sha256(self) -> str:
        """Of the ONNX file."""
        return sha256_hex(self.path.read_bytes())

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """What mixed precision switches."""
        return blocks_of(self.onnx, self.zone)

    def nodes_of(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Returns the nodes of the blocks called ``names``."""
        return tuple(node for each in self.blocks if each.name in names for node in each.nodes)

    def batches(self, samples: tuple[Sample, ...]) -> Batches:
        """Returns the inputs made of ``samples``."""
        return Batches(samples, self.given)


@dataclass(frozen=True)
class Batches:
    """Inputs (1, 3, h, w), made one at a time: 128 at 640 px would fill 600 MiB.

    Attributes:
        samples: Images.
        given: Input of the engine.
    """

    samples: tuple[Sample, ...]
    given: InputSpec

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Array]:
        for each in self.samples:
            yield prepare(each.frame(), self.given)[0]


def digest_of(samples: tuple[Sample, ...]) -> str:
    """Returns a digest over images and their order."""
    return sha256_hex("".join(each.sha256 for each in samples).encode())


def samples_of(data: Data, split: Split) -> tuple[Sample, ...]:
    """Returns the images that choose, or those that judge."""
    return data.select if split == "select" else data.gate


def labelled_digest(data: Data, split: Split) -> str:
    """Returns a digest over images and labels of a split."""
    parts = [
        each.sha256 + sha256_hex(each.labels.read_bytes() if each.labels.is_file() else b"")
        for each in samples_of(data, split)
    ]
    return sha256_hex("".join(parts).encode())
