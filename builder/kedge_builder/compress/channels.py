"""Which channels to take away: by their weights, by what their group's loss does, by what it saves.

Torch-Pruning's dependency graph (Fang et al., DepGraph, CVPR 2023) says which channels must go
together. Within such a group channels are ranked by L1 norm. Between groups norms say little, so
each group's weaker half is silenced once and the distance of the head's answers is measured. A
channel's rank is then its share of that damage for each multiplication that its loss saves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch_pruning as tp

from kedge_builder.compress.response import distance, last_convolutions

#: Both runtimes' kernels work on eight channels at a time.
ROUND_TO = 8
#: No group loses more than this share of its channels in one step.
_MOST_PER_STEP = 0.5
#: Ranks are gone through in so many slices, counting after each.
_SLICES = 64


def macs_and_parameters(model: Any, size: int) -> tuple[int, int]:
    """Counts multiply-accumulates of one image of ``size`` pixels, and parameters."""
    image = _blank(model, size)
    with torch.no_grad():
        macs, parameters = tp.utils.count_ops_and_params(model, image)
    return int(macs), int(parameters)


def take_away(model: Any, images: Any, target_macs: float, tick: Callable[[], None]) -> bool:
    """Removes channels, in place, until the model needs no more than ``target_macs``.

    Args:
        model: From :func:`kedge_builder.compress.split.split_csp`.
        images: (n, 3, size, size) to measure damage on.
        target_macs: For one image of that size.
        tick: Called after each group that was measured.

    Returns:
        Whether the target was reached before every group was at its limit.
    """
    size = images.shape[-1]
    for each in model.parameters():
        each.requires_grad_(True)  # the graph is traced along gradients
    importance = _Importance()
    pruner = tp.pruner.BasePruner(
        model.eval(),
        _blank(model, size),
        importance=importance,
        global_pruning=True,
        pruning_ratio=1.0,
        iterative_steps=_SLICES,
        max_pruning_ratio=_MOST_PER_STEP,
        ignored_layers=fixed_layers(model),
        round_to=ROUND_TO,
    )
    importance.scales = _scales(model, pruner, images, tick)
    for _ in range(_SLICES):
        pruner.step()
        if macs_and_parameters(model, size)[0] <= target_macs:
            return True
    return False


def fixed_layers(model: Any) -> list[Any]:
    """Returns what keeps its channels, found by structure.

    The last convolution of each branch of the head: its outputs are the task's. DFL: one for each
    bin. Attention: it cuts its channels into heads of a fixed size.
    """
    from ultralytics.nn.modules.block import DFL, Attention

    kinds = [each for each in model.modules() if isinstance(each, (DFL, Attention))]
    return last_convolutions(model) + kinds


def groups(model: Any, pruner: Any) -> list[Any]:
    """Returns the groups of channels that may lose some."""
    return list(
        pruner.DG.get_all_groups(
            ignored_layers=pruner.ignored_layers, root_module_types=pruner.root_module_types
        )
    )


class _Importance(tp.importance.GroupMagnitudeImportance):  # type: ignore[misc]
    """Group L1 norm, times what the group's channels are worth."""

    def __init__(self) -> None:
        super().__init__(p=1, normalizer=None)
        self.scales: dict[Any, float] = {}

    def __call__(self, group: Any) -> Any:
        norms = super().__call__(group)
        return None if norms is None else norms * self.scales.get(group[0].dep.target.module, 1.0)


def _scales(model: Any, pruner: Any, images: Any, tick: Callable[[], None]) -> dict[Any, float]:
    """Returns for each group's root what a channel of norm one is worth (:func:`worth`)."""
    plain = tp.importance.GroupMagnitudeImportance(p=1, normalizer=None)
    image = images[:1]
    macs = tp.utils.count_ops_and_params(model, image, layer_wise=True)[2]
    found: dict[Any, float] = {}
    with torch.no_grad():
        wanted = model(images)
        for group in groups(model, pruner):
            norms = plain(group)
            weaker = torch.argsort(norms)[: max(1, len(norms) // 2)]
            root = group[0].dep.target.module
            part = pruner.DG.get_pruning_group(root, group[0].dep.handler, weaker.tolist())
            with _silenced(part, pruner.DG):
                damage = float(distance(model(images), wanted))
            found[root] = worth(damage, float(norms[weaker].sum()), _saved(group, pruner.DG, macs))
            tick()
    return found


def worth(damage: float, norm: float, saved: float) -> float:
    """Returns the damage for each unit of norm and each multiplication saved.

    A group without any damage still has a worth: among equals the norm decides.

    Args:
        damage: Distance of the answers without the weaker half of the channels.
        norm: Sum of those channels' norms.
        saved: Multiply-accumulates saved by a channel.
    """
    return max(damage, 1e-9) / max(norm, 1e-9) / saved


def _saved(group: Any, graph: Any, macs: Mapping[Any, float | None]) -> float:
    """Returns the multiply-accumulates that go with one channel of the group."""
    total = 1.0
    for dep, indices in group:
        module = dep.target.module
        if not isinstance(module, torch.nn.Conv2d):
            continue
        out = graph.is_out_channel_pruning_fn(dep.handler)
        channels = module.out_channels if out else module.in_channels
        total += (macs.get(module) or 0.0) * len(indices) / channels
    return total / len(group[0].idxs)


@contextmanager
def _silenced(group: Any, graph: Any) -> Iterator[None]:
    """Sets a group's channels to zero for a while: what follows reads what pruning would leave."""
    kept = []
    for dep, indices in group:
        module = dep.target.module
        if not graph.is_out_channel_pruning_fn(dep.handler) or not hasattr(module, "weight"):
            continue
        for tensor in (module.weight, module.bias):
            if tensor is not None:
                kept.append((tensor, tensor.detach().clone()))
                tensor.data[indices] = 0
    try:
        yield
    finally:
        for tensor, before in reversed(kept):
            tensor.data.copy_(before)


def _blank(model: Any, size: int) -> Any:
    return torch.zeros(1, 3, size, size, device=next(model.parameters()).device)
