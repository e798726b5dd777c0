"""Draws the demo's data: scenes of four shapes with labels, and a video of the same shapes.

Everything is seeded: the same arguments give the same bytes on the same OpenCV.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import yaml

#: What the boards' camera sees moves so fast: a minute of probation holds enough objects.
PACE = 4.0
CLASSES = ("circle", "square", "triangle", "star")
Image: TypeAlias = npt.NDArray[np.uint8]
#: Radii of the demo's shapes as shares of the scene.
RADII = (0.07, 0.17)
#: For training: a detector that knows these keeps its accuracy at 2.6 times the input size,
#: so that release 1.2 is honest and only slow.
TRAINING_RADII = (0.06, 0.45)
#: Points of each shape on the unit circle: (angle in turns, radius).
_OUTLINES: Mapping[str, tuple[tuple[float, float], ...]] = {
    "circle": tuple((i / 40, 1.0) for i in range(40)),
    "square": tuple(((2 * i + 1) / 8, 1.0) for i in range(4)),
    "triangle": tuple((i / 3, 1.0) for i in range(3)),
    "star": tuple((i / 10, 1.0 if i % 2 == 0 else 0.42) for i in range(10)),
}


@dataclass(frozen=True)
class Shape:
    """One shape of a scene.

    Attributes:
        label: Index into :data:`CLASSES`.
        x: Centre, pixels.
        y: Centre, pixels.
        radius: Pixels.
        turn: Rotation, turns.
        colour: BGR.
    """

    label: int
    x: float
    y: float
    radius: float
    turn: float
    colour: tuple[int, int, int]

    def points(self) -> npt.NDArray[np.float64]:
        """Returns the outline, (n, 2) pixels."""
        outline = _OUTLINES[CLASSES[self.label]]
        angles = np.array([2 * math.pi * (turn + self.turn) for turn, _ in outline])
        radii = np.array([radius * self.radius for _, radius in outline])
        return np.stack([self.x + radii * np.cos(angles), self.y + radii * np.sin(angles)], axis=1)

    def box(self, size: int) -> tuple[float, float, float, float] | None:
        """Returns the visible box x1 y1 x2 y2 in pixels, or ``None`` if under a third is seen."""
        low, high = self.points().min(axis=0), self.points().max(axis=0)
        seen_low, seen_high = np.clip(low, 0, size), np.clip(high, 0, size)
        share = np.prod(seen_high - seen_low) / np.prod(high - low)
        if share < 0.35:
            return None
        return (float(seen_low[0]), float(seen_low[1]), float(seen_high[0]), float(seen_high[1]))


def background(rng: np.random.Generator, size: int) -> Image:
    """Returns a (size, size, 3) ground with a slope of light, blotches and grain."""
    base = rng.integers(40, 200, 3).astype(np.float64)
    slope = np.linspace(-1, 1, size)
    light = slope[None, :] * rng.uniform(-30, 30) + slope[:, None] * rng.uniform(-30, 30)
    blotches = cv2.resize(
        rng.normal(0, 14, (8, 8, 3)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC
    )
    lit: Image = np.clip(base + light[:, :, None] + blotches, 0, 255).astype(np.uint8)
    return lit


def random_shape(
    rng: np.random.Generator,
    size: int,
    ground: Image,
    radii: tuple[float, float] = RADII,
) -> Shape:
    """Returns a shape somewhere in the scene whose colour can be told from the ground.

    Args:
        rng: Source of chance.
        size: Pixels of the square scene.
        ground: What lies behind.
        radii: Least and largest radius as shares of the scene, drawn log-uniformly.
    """
    x, y = rng.uniform(0.05, 0.95, 2) * size
    near = ground[int(y) % size, int(x) % size].astype(np.int64)
    colour = rng.integers(0, 256, 3)
    while np.abs(colour - near).max() < 70:
        colour = rng.integers(0, 256, 3)
    return Shape(
        label=int(rng.integers(len(CLASSES))),
        x=float(x),
        y=float(y),
        radius=float(math.exp(rng.uniform(math.log(radii[0]), math.log(radii[1]))) * size),
        turn=float(rng.uniform()),
        colour=(int(colour[0]), int(colour[1]), int(colour[2])),
    )


def apart(shapes: list[Shape], other: Shape) -> bool:
    """Says whether ``other`` overlaps none of ``shapes``."""
    return all(
        math.hypot(each.x - other.x, each.y - other.y) > each.radius + other.radius
        for each in shapes
    )


def paint(ground: Image, shapes: list[Shape], rng: np.random.Generator) -> Image:
    """Returns the ground with shapes on it, slightly blurred, with grain."""
    image = ground.copy()
    for each in shapes:
        outline = np.round(each.points() * 16).astype(np.int32)
        cv2.fillPoly(image, [outline], each.colour, lineType=cv2.LINE_AA, shift=4)
    image = np.asarray(cv2.GaussianBlur(image, (3, 3), float(rng.uniform(0.3, 0.9))), np.uint8)
    grain = rng.normal(0, float(rng.uniform(2, 7)), image.shape)
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def scene(
    rng: np.random.Generator, size: int, radii: tuple[float, float] = RADII
) -> tuple[Image, list[Shape]]:
    """Returns an image (size, size, 3) BGR and one to five shapes that do not overlap."""
    ground = background(rng, size)
    shapes: list[Shape] = []
    for _ in range(int(rng.integers(1, 6))):
        other = random_shape(rng, size, ground, radii)
        if apart(shapes, other) and other.box(size):
            shapes.append(other)
    return paint(ground, shapes, rng), shapes


def draw_dataset(
    root: Path,
    *,
    train: int,
    val: int,
    size: int,
    seed: int,
    swap_labels: Mapping[int, int] | None = None,
    radii: tuple[float, float] = RADII,
) -> Path:
    """Writes a data set in YOLO layout.

    Args:
        root: New folder.
        train: Images for training and calibration.
        val: Images for the verdict.
        size: Pixels, square.
        seed: Of everything.
        swap_labels: Class → class written instead of it: a mistake of labelling.
        radii: Least and largest radius as shares of the scene.

    Returns:
        The path of ``data.yaml``.
    """
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val)):
        (root / split / "images").mkdir(parents=True)
        (root / split / "labels").mkdir()
        for index in range(count):
            image, shapes = scene(rng, size, radii)
            name = f"{split}-{index:05d}"
            cv2.imwrite(
                str(root / split / "images" / f"{name}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 95]
            )
            lines = [_label_line(each, size, swap_labels or {}) for each in shapes]
            (root / split / "labels" / f"{name}.txt").write_text("".join(filter(None, lines)))
    body = {"path": str(root.resolve()), "train": "train/images", "val": "val/images",
            "names": dict(enumerate(CLASSES))}  # fmt: skip
    (root / "data.yaml").write_text(yaml.safe_dump(body, sort_keys=False))
    return root / "data.yaml"


def _label_line(shape: Shape, size: int, swap: Mapping[int, int]) -> str:
    box = shape.box(size)
    if box is None:
        return ""
    x1, y1, x2, y2 = (each / size for each in box)
    label = swap.get(shape.label, shape.label)
    return f"{label} {(x1 + x2) / 2:.6f} {(y1 + y2) / 2:.6f} {x2 - x1:.6f} {y2 - y1:.6f}\n"


def draw_video(
    path: Path, *, seconds: float, fps: float, size: int, seed: int, pace: float = 1.0
) -> None:
    """Writes a video of shapes that drift through the picture, come in and go out.

    Args:
        path: ``.mp4``.
        seconds: Length.
        fps: Frames a second.
        size: Pixels, square.
        seed: Of everything.
        pace: How many times as fast the shapes drift: what a board proves, it proves by objects.

    Raises:
        OSError: OpenCV cannot write the file.
    """
    rng = np.random.default_rng(seed)
    ground = background(rng, size)
    lanes = [_Lane(rng, size, ground, lane) for lane in range(4)]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (size, size))
    if not writer.isOpened():
        raise OSError(f"{path} cannot be written")
    for _ in range(round(seconds * fps)):
        writer.write(paint(ground, [lane.step(pace / fps) for lane in lanes], rng))
    writer.release()


class _Lane:
    """A horizontal lane of the video; shapes cross it one after another."""

    def __init__(self, rng: np.random.Generator, size: int, ground: Image, lane: int) -> None:
        self._rng, self._size, self._ground, self._lane = rng, size, ground, lane
        self._shape, self._speed = self._enter()
        self._shape = self._moved(float(rng.uniform(0, size)))

    def _enter(self) -> tuple[Shape, float]:
        shape = random_shape(self._rng, self._size, self._ground)
        radius = min(shape.radius, self._size * 0.11)
        y = (self._lane + 0.5) / 4 * self._size
        speed = float(self._rng.uniform(0.08, 0.2) * self._size)
        entered = Shape(shape.label, -radius, y, radius, shape.turn, shape.colour)
        return entered, speed

    def _moved(self, distance: float) -> Shape:
        old = self._shape
        turn = old.turn + distance / self._size / 4
        return Shape(old.label, old.x + distance, old.y, old.radius, turn, old.colour)

    def step(self, seconds: float) -> Shape:
        """Returns the lane's shape after ``seconds`` more."""
        if self._shape.x - self._shape.radius > self._size:
            self._shape, self._speed = self._enter()
        self._shape = self._moved(self._speed * seconds)
        return self._shape


def main() -> None:
    """Draws what the README's walk works on: ``python -m demo.shapes FOLDER``."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    draw_dataset(folder / "data", train=200, val=200, size=160, seed=101)
    draw_video(folder / "camera.mp4", seconds=60, fps=12, size=160, seed=7, pace=PACE)
    config = {
        "server": "http://127.0.0.1:8470",
        "root": "keys/repository/1.root.json",
        "state_dir": "board",
        "device": "cam-1",
        "device_class": "x86-onnxruntime",
        "models": ["shapes"],
        "source": {"kind": "video", "path": "camera.mp4", "fps": 12},
        "sink": {"kind": "jsonl", "path": "frames.jsonl"},
        "poll_seconds": 2,
        "shadow": {"seconds": 8, "share": 0.25},
        "probation": {"seconds": 8, "max_seconds": 60, "min_frames": 60},
    }
    (folder / "agent.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    print(f"{folder}: data/data.yaml, camera.mp4, agent.yaml")


if __name__ == "__main__":
    main()
