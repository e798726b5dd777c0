"""What an image is described by: light, sizes, classes, the detector's own features, a hash."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from kedge_shared.detections import Array
from kedge_shared.manifest import InputSpec
from kedge_shared.vision import Frame, prepare

#: One image's features, (k,) float32; k is the same for all images of one extractor.
Vector: TypeAlias = npt.NDArray[np.float32]
#: Everything but the features is read off a grey thumbnail of so many pixels a side.
_THUMBNAIL = 128
#: Side of the perceptual hash (its square is the number of bits) and of the confirming picture.
_HASH_SIDE, _PICTURE_SIDE = 16, 32
#: Added to the spread of the picture: the grain of a plain surface is not blown up to a pattern.
_PLAIN = 2.0
#: Input pixels of the backbone, and the parameters up to which a model is fed the larger input.
#: One slow core, YOLOv8n: 12 ms at 160 px, 24 at 224, 29 at 320; YOLOv8s: 35 ms at 160.
_INPUT, _INPUT_OF_LARGE, _SMALL_PARAMETERS = 160, 96, 5_000_000


@dataclass(frozen=True)
class Description:
    """What is known of one image without keeping its pixels.

    Attributes:
        name: What a person is shown.
        sha256: Of the file.
        brightness: Mean grey value, 0..255.
        contrast: Standard deviation of the grey values, 0..127.5.
        areas: (n,) areas of its objects as shares of the image; empty without labels.
        classes: Numbers of the classes present, or ``None`` if nobody labelled it.
        features: (k,) of the detector's backbone.
        code: (256,) ±1 float32, the bits of its perceptual hash: the product of two codes is 256
            less twice the number of bits that differ.
        picture: (1024,) grey 32 x 32, mean 0 and spread 1: the same for the image brightened.
    """

    name: str
    sha256: str
    brightness: float
    contrast: float
    areas: Array
    classes: frozenset[int] | None
    features: Vector
    code: Vector
    picture: Vector


class FeatureExtractor(Protocol):
    """Turns an image into numbers in which alike images are near one another."""

    def __call__(self, frame: Frame) -> Vector:
        """Returns the features, (k,), of a frame (h, w, 3) BGR."""
        ...


class Backbone:
    """The detector's own features: its last backbone layer, averaged over the image.

    What the quantizer sees is activations of this network, so images that are alike to it are
    alike for calibration.

    Args:
        model: Ultralytics detection model; it is copied and not touched.
    """

    def __init__(self, model: Any) -> None:
        self._model = copy.deepcopy(model).float().fuse(verbose=False).eval()
        self._layer = len(self._model.yaml["backbone"]) - 1
        parameters = sum(each.numel() for each in self._model.parameters())
        side = _INPUT if parameters <= _SMALL_PARAMETERS else _INPUT_OF_LARGE
        self._given = InputSpec(height=side, width=side)

    def __call__(self, frame: Frame) -> Vector:
        """Returns the features, (channels,)."""
        import torch

        batch, _ = prepare(frame, self._given)
        with torch.inference_mode():
            (found,) = self._model.predict(torch.from_numpy(batch), embed=[self._layer])
        return np.asarray(found.numpy(), dtype=np.float32)


def describe(
    frame: Frame, labels: Array | None, extractor: FeatureExtractor, *, name: str, sha256: str
) -> Description:
    """Describes one image.

    Args:
        frame: (h, w, 3) BGR.
        labels: (m, 5) class, x1 y1 x2 y2 in pixels; ``None`` if nobody labelled it.
        extractor: Of the features.
        name: What a person is shown.
        sha256: Of the file.
    """
    import cv2
    import imagehash
    from PIL import Image

    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    bits = imagehash.phash(Image.fromarray(small), hash_size=_HASH_SIDE).hash.ravel()
    picture = cv2.resize(
        small, (_PICTURE_SIDE, _PICTURE_SIDE), interpolation=cv2.INTER_AREA
    ).astype(np.float32)
    picture = (picture - picture.mean()) / (picture.std() + _PLAIN)
    return Description(
        name=name,
        sha256=sha256,
        brightness=float(small.mean()),
        contrast=float(small.std()),
        areas=_areas(labels, frame),
        classes=None if labels is None else frozenset(int(each) for each in labels[:, 0]),
        features=np.asarray(extractor(frame), dtype=np.float32),
        code=np.where(bits, 1, -1).astype(np.float32),
        picture=picture.ravel(),
    )


def _areas(labels: Array | None, frame: Frame) -> Array:
    if labels is None:
        return np.zeros(0, dtype=np.float32)
    sides = labels[:, 3:5] - labels[:, 1:3]
    height, width = frame.shape[:2]
    return np.asarray(sides[:, 0] * sides[:, 1] / (height * width), dtype=np.float32)
