"""Reads a YAML architecture without evaluating what a stranger wrote.

Ultralytics' ``parse_model`` evaluates the activation, looks module names up among its globals and
argument strings among its local variables. So nothing reaches it here but what this module has
checked: listed modules, numbers within limits, and a handful of words.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kedge_builder.models.families import OTHER_HEADS, SUPPORTED
from kedge_shared.errors import InputError

#: What YOLOv8, YOLO11 and YOLO26 detectors are built of, ghost and P2/P6 variants included.
_MODULES = frozenset({
    "C2PSA", "C2f", "C3Ghost", "C3k2", "Concat", "Conv", "DWConv", "Detect", "GhostConv", "SPPF",
    "nn.Upsample",
})  # fmt: skip
#: Words that may stand among a layer's arguments; ``nc`` is the number of classes.
_WORDS = frozenset({"nc", "nearest", "bilinear", "None", "True", "False"})
_ACTIVATIONS = frozenset(
    f"{prefix}nn.{name}()"
    for prefix in ("", "torch.")
    for name in ("SiLU", "ReLU", "ReLU6", "Hardswish", "LeakyReLU", "GELU", "Mish", "Identity")
)
_KEYS = frozenset({"nc", "scales", "scale", "depth_multiple", "width_multiple", "activation",
                   "end2end", "reg_max", "backbone", "head", "names"})  # fmt: skip
_FILE_LIMIT_BYTES = 64 * 1024
_LAYERS_LIMIT = 100
_REPEATS_LIMIT = 16
_CHANNELS_LIMIT = 4096
_CLASSES_LIMIT = 10_000
_PACKAGED = re.compile(r"(?:yolo(?:e-)?|rtdetr-)[a-z0-9-]{1,40}\.ya?ml")
_SCALED = re.compile(r"^(yolo(?:e-)?v?\d+)([nslmx])(?=[-.])")


@dataclass(frozen=True)
class Architecture:
    """A checked architecture.

    Attributes:
        source: File or name that it was read from.
        body: What Ultralytics builds the model from.
    """

    source: str
    body: dict[str, Any]


def is_architecture(source: str | Path) -> bool:
    """Says whether a name is that of a YAML file rather than of weights."""
    return Path(source).suffix.lower() in {".yaml", ".yml"}


def read(source: str | Path) -> Architecture:
    """Reads and checks an architecture; builds nothing.

    Args:
        source: A YAML file, or a name that Ultralytics ships, for example ``yolo11n.yaml``. The
            letter after the number is the scale.

    Raises:
        InputError: Missing, no YAML, another task, or something that no detector needs.
    """
    path = Path(source)
    where = f"architecture {path.name}"
    try:
        with _find(path).open("rb") as file:
            data = file.read(_FILE_LIMIT_BYTES + 1)
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror}") from None
    if len(data) > _FILE_LIMIT_BYTES:
        raise InputError(f"{where} is larger than {_FILE_LIMIT_BYTES} bytes")
    try:
        body = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError):
        raise InputError(f"{where} is no YAML") from None
    scaled = _SCALED.match(path.name.lower())
    return Architecture(str(source), check(body, where, scaled.group(2) if scaled else None))


def build(architecture: Architecture) -> Any:
    """Builds the model with random weights, the same ones every time.

    Returns:
        Ultralytics detection model, float32, eval mode.

    Raises:
        InputError: The layers do not fit one another.
    """
    from kedge_builder.models.torchvision_ops import ensure_torchvision_ops
    from kedge_builder.models.ultralytics_offline import quiet

    ensure_torchvision_ops()
    quiet()
    import torch
    from ultralytics.nn.tasks import DetectionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            return DetectionModel(architecture.body, verbose=False).eval()
        # Boundary: Ultralytics and torch raise whatever layers that do not fit make them raise.
        except Exception as error:  # noqa: BLE001
            reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
            raise InputError(f"architecture {architecture.source}: {reason}") from None


def check(body: Any, where: str, scale: str | None) -> dict[str, Any]:
    """Returns the architecture with its scale chosen, or says what is wrong with it.

    Args:
        body: What the YAML file holds.
        where: Names the file in errors.
        scale: Letter from the file's name; without one the first scale is taken, as Ultralytics
            does.

    Raises:
        InputError: See :func:`read`.
    """
    layers = _layers(body, where)
    head = str(layers[-1][2])
    if head in OTHER_HEADS:
        raise InputError(f"{where}: {OTHER_HEADS[head]} models are not supported, {SUPPORTED}")
    unknown = sorted(str(each) for each in body if each not in _KEYS)
    if unknown:
        raise InputError(f"{where}: {unknown[0]} is nothing that a detector's architecture has")
    if head != "Detect" or any(row[2] == "Detect" for row in layers[:-1]):
        raise InputError(f"{where} does not end in one Detect layer")
    for index, row in enumerate(layers):
        _check_layer(row, index, f"{where}: layer {index}")
    checked = {key: body[key] for key in _KEYS - {"names", "scale"} if key in body}
    _check_numbers(checked, where)
    chosen = _chosen_scale(checked.get("scales"), scale or body.get("scale"), where)
    return checked if chosen is None else {**checked, "scale": chosen}


def _find(path: Path) -> Path:
    """Returns the file itself, or the one that Ultralytics ships under its name."""
    name = path.name.lower()
    if path.exists() or path.parent != Path() or not _PACKAGED.fullmatch(name):
        return path
    spec = importlib.util.find_spec("ultralytics")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("ultralytics", name="ultralytics")
    folder = Path(spec.origin).parent / "cfg" / "models"
    for wanted in (name, _SCALED.sub(r"\1", name)):
        for found in sorted(folder.glob(f"*/{wanted}")):
            return found
    return path


def _layers(body: Any, where: str) -> list[list[Any]]:
    if not isinstance(body, Mapping):
        raise InputError(f"{where} holds no architecture")
    rows: list[Any] = []
    for part in ("backbone", "head"):
        if not isinstance(body.get(part), list):
            raise InputError(f"{where} has no {part}")
        rows.extend(body[part])
    if not 1 < len(rows) <= _LAYERS_LIMIT:
        raise InputError(f"{where} has {len(rows)} layers, from 2 to {_LAYERS_LIMIT} are read")
    for index, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != 4 or not isinstance(row[3], list):
            raise InputError(f"{where}: layer {index} is not [from, repeats, module, arguments]")
    return rows


def _check_layer(row: Sequence[Any], index: int, where: str) -> None:
    source, repeats, module, arguments = row
    sources = source if isinstance(source, list) else [source]
    if not sources or not all(_whole(each, -max(index, 1), index - 1) for each in sources):
        raise InputError(f"{where} reads from {source}, which is no layer before it")
    if not _whole(repeats, 1, _REPEATS_LIMIT):
        raise InputError(f"{where} is repeated {repeats} times, at most {_REPEATS_LIMIT} are read")
    if not isinstance(module, str) or module not in _MODULES:
        raise InputError(f"{where}: module {str(module)[:60]} is not supported, {SUPPORTED}")
    for each in arguments:
        if not _argument(each):
            raise InputError(f"{where}: argument {str(each)[:60]!r} is not supported")


def _argument(value: Any) -> bool:
    if isinstance(value, str):
        return value in _WORDS
    if isinstance(value, list):
        return all(_whole(each, 0, _CHANNELS_LIMIT) for each in value)
    return value is None or _number(value, -1, _CHANNELS_LIMIT)


def _whole(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _number(value: Any, low: float, high: float) -> bool:
    return type(value) in {bool, int, float} and low <= value <= high


def _check_numbers(body: dict[str, Any], where: str) -> None:
    if not _whole(body.get("nc"), 1, _CLASSES_LIMIT):
        raise InputError(f"{where} has no number of classes (nc) from 1 to {_CLASSES_LIMIT}")
    if "reg_max" in body and not _whole(body["reg_max"], 1, 64):
        raise InputError(f"{where}: reg_max is not from 1 to 64")
    if type(body.get("end2end", False)) is not bool:
        raise InputError(f"{where}: end2end is neither true nor false")
    for key in ("depth_multiple", "width_multiple"):
        if key in body and not _number(body[key], 0.01, 4):
            raise InputError(f"{where}: {key} is not from 0.01 to 4")
    if "activation" in body and str(body["activation"]) not in {"None", *_ACTIVATIONS}:
        raise InputError(f"{where}: activation {str(body['activation'])[:60]} is not supported")


def _chosen_scale(scales: Any, letter: Any, where: str) -> str | None:
    if scales is None:
        return None
    if not isinstance(scales, dict) or not all(map(_is_scale, scales.items())):
        raise InputError(f"{where}: scales are not letters with [depth, width, channels]")
    if not scales or (letter is not None and letter not in list(scales)):
        known = ", ".join(map(str, scales)) or "none"
        raise InputError(f"{where} has no scale {str(letter)[:8]}", f"it has: {known}")
    return str(letter if letter is not None else next(iter(scales)))


def _is_scale(entry: tuple[Any, Any]) -> bool:
    name, values = entry
    return (
        isinstance(name, str)
        and isinstance(values, list)
        and len(values) == 3
        and all(_number(each, 0.01, 4) for each in values[:2])
        and _whole(values[2], 8, _CHANNELS_LIMIT)
    )
