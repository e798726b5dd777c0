"""Reads trained checkpoints without running what a stranger put into them.

A checkpoint is a pickle, and a pickle is a program. Only the opcodes' harmless half is carried
out here: tensors are rebuilt, module objects are made without calling their constructors
(Ultralytics' constructors evaluate text), and every other name is refused before it is called.
"""

from __future__ import annotations

import importlib
import pickle
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from kedge_builder.models.architectures import is_architecture
from kedge_builder.models.families import OTHER_HEADS, OTHER_MODELS, SUPPORTED
from kedge_builder.models.torchvision_ops import ensure_torchvision_ops
from kedge_builder.models.ultralytics_offline import quiet
from kedge_shared.errors import InputError
from kedge_shared.ids import sha256_hex

#: Functions that a checkpoint may call. torch's own ``weights_only`` list holds the same.
_CALLABLE = frozenset({
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch", "Size"),
    ("builtins", "set"),
    ("builtins", "dict"),
    ("builtins", "list"),
    ("builtins", "slice"),
    ("_codecs", "encode"),
    ("copyreg", "_reconstructor"),
})  # fmt: skip
#: Names that a checkpoint may mention without calling them.
_MENTIONED_PREFIXES = ("torch.nn.modules.", "ultralytics.nn.modules.")
#: Classes that a checkpoint may name besides: the detector, and our own pruned blocks.
_CLASSES = frozenset({
    ("ultralytics.nn.tasks", "DetectionModel"),
    ("kedge_builder.compress.split", "SplitC2f"),
    ("kedge_builder.compress.split", "SplitC2PSA"),
})  # fmt: skip


class _Foreign(Exception):
    """A checkpoint mentions something that it has no business with."""


@dataclass(frozen=True)
class Trained:
    """A trained detector.

    Attributes:
        model: ``torch.nn.Module`` in float32, eval mode.
        classes: Names in the order of the scores.
        sha256: Of the file.
    """

    model: Any
    classes: tuple[str, ...]
    sha256: str


def load(path: Path) -> Trained:
    """Loads an Ultralytics detection checkpoint.

    Raises:
        InputError: Missing, no checkpoint, another task, or it wants foreign classes.
    """
    if is_architecture(path):
        raise InputError(
            f"{path} is an architecture without weights",
            "train it first; kedge inspect reads it as it is",
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"weights {path} cannot be read: {error.strerror}") from None
    ensure_torchvision_ops()
    quiet()
    checkpoint = _unpickle(path)
    found: Any = checkpoint.get("ema") or checkpoint.get("model")
    if type(found).__name__ != "DetectionModel":
        raise InputError(f"weights {path} hold no detection model")
    try:
        model, classes = found.float().eval(), _checked(found)
    # What a checkpoint holds was put together without constructors: any part may be missing.
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"weights {path} hold a damaged model: {error}") from None
    except _Foreign as error:
        raise InputError(f"weights {path}: {error}") from None
    return Trained(model, classes, sha256_hex(data))


def _checked(model: Any) -> tuple[str, ...]:
    """Returns the classes of a detector that Kedge can build, or says why it cannot."""
    head = model.model[-1]
    kind = type(head).__name__
    if kind != "Detect":
        raise _Foreign(f"{OTHER_HEADS.get(kind, kind)} models are not supported, {SUPPORTED}")
    names = model.names
    classes = tuple(str(names[at]) for at in range(len(names)))
    if len(classes) != head.nc:
        raise _Foreign(f"they name {len(classes)} classes, their scores are of {head.nc}")
    channels = next(iter(model.parameters())).shape[1]
    if channels != 3:
        raise _Foreign(f"the model takes {channels} channels, cameras give 3 (RGB)")
    if int(max(model.stride)) < 1:
        raise _Foreign("their strides were never found out")
    return classes


def _unpickle(path: Path) -> dict[str, Any]:
    import torch

    module = types.ModuleType("kedge_restricted_pickle")
    # torch asks for ``load`` too, before anything else, when the file is of its oldest format.
    vars(module).update(
        Unpickler=_Unpickler,
        UnpicklingError=pickle.UnpicklingError,
        load=lambda file, **options: _Unpickler(file, **options).load(),
    )
    try:
        checkpoint = torch.load(path, map_location="cpu", pickle_module=module, weights_only=False)
    except _Foreign as error:
        raise InputError(f"weights {path}: {error}", "they are not loaded") from None
    # Boundary: torch raises whatever a broken file makes it stumble over.
    except Exception as error:  # noqa: BLE001
        # Its first sentence: the next ones ask to report a bug to torch.
        said = str(error).splitlines()[0].partition(". ")[0][:120] if str(error) else ""
        raise InputError(
            f"weights {path} are no readable checkpoint: {said or type(error).__name__}",
            "copy the file anew",
        ) from None
    if not isinstance(checkpoint, dict):
        raise InputError(f"weights {path} hold no detection model")
    return checkpoint


class _Unpickler(pickle._Unpickler):
    """The pure Python unpickler, with its two dangerous opcodes narrowed."""

    stack: list[Any]
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        """Resolves a name from the list; every other one ends the load."""
        module = {"__builtin__": "builtins"}.get(module, module)
        if module == "ultralytics.nn.tasks" and name in OTHER_MODELS:
            raise _Foreign(f"{OTHER_MODELS[name]} models are not supported, {SUPPORTED}")
        found = (
            getattr(importlib.import_module(module), name, None) if _known(module, name) else None
        )
        if found is None:
            raise _Foreign(f"they want {module}.{name}, which a detector does not need")
        return found

    def load_reduce(self) -> None:
        """Calls a listed function only; module classes are never called."""
        self._only_listed(self.stack[-2])
        pickle._Unpickler.load_reduce(self)  # type: ignore[attr-defined]

    def _refuse(self) -> None:
        raise _Foreign("they use an opcode that no checkpoint needs")

    def _only_listed(self, function: Any) -> None:
        name = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
        if name not in _CALLABLE and not isinstance(function, _torch_types()):
            raise _Foreign(f"they call {'.'.join(name)}, which a checkpoint need not")

    dispatch[pickle.REDUCE[0]] = load_reduce
    for _opcode in (pickle.INST, pickle.OBJ, pickle.EXT1, pickle.EXT2, pickle.EXT4):
        dispatch[_opcode[0]] = _refuse


def _torch_types() -> tuple[type, ...]:
    import torch

    return (type(torch.float32),)


def _known(module: str, name: str) -> bool:
    if (module, name) in _CALLABLE | _CLASSES:
        return True
    if module == "torch":
        return name.endswith("Storage") or name in {"float16", "float32", "int64", "device"}
    if not module.startswith(_MENTIONED_PREFIXES) or "." in name:
        return False
    import torch

    found = getattr(importlib.import_module(module), name, None)
    return isinstance(found, type) and issubclass(found, torch.nn.Module)
