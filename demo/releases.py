"""The demo's four releases: trained, built and measured on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from demo.own_data import copy_data
from demo.settings import DEVICES, MODEL, DemoSettings
from demo.shapes import CLASSES, draw_dataset
from demo.train import fine_tune, quiet_ultralytics
from kedge_builder.data.datasets import read_data
from kedge_builder.pipeline import BuildResult, run
from kedge_builder.progress import Progress
from kedge_builder.recipe import BuildOptions
from kedge_shared.device_classes import DeviceClass, find_class

#: A budget from a quiet machine must hold on five boards that share it.
_LATENCY_ROOM = 5.0
_FINE_TUNE_EPOCHS, _WRONG_EPOCHS = 2, 5
#: So small a model wins little or nothing from INT8 where float units are wide (AVX-512).
_SMALL_MODEL = {"speed": "a small model: the demo is about updates, not about speed"}
#: A labelling mistake: every class is called by the next one's name.
WRONG_LABELS = {at: (at + 1) % len(CLASSES) for at in range(len(CLASSES))}


@dataclass(frozen=True)
class Data:
    """The data sets.

    Attributes:
        right: As it should be.
        wrong: The same kind of scenes with swapped labels.
    """

    right: Path
    wrong: Path


class Releases:
    """Makes releases one after the other.

    Args:
        settings: Of the demo.
    """

    def __init__(self, settings: DemoSettings) -> None:
        self._settings = settings
        self._classes = [find_class(name) for name in dict.fromkeys(DEVICES.values())]
        self._progress = Progress()
        quiet_ultralytics()

    @property
    def policy(self) -> Path:
        """The model policy that release 1.0 proposed."""
        return self._settings.out / "builds" / "1.0" / "policy" / "policy.json"

    def draw(self) -> Data:
        """Draws the data, or copies what was given, once more with swapped labels."""
        settings = self._settings
        if settings.data is not None:
            found = read_data(settings.data)
            return Data(
                copy_data(found, settings.out / "data"),
                copy_data(found, settings.out / "wrong", shift=1),
            )
        right = self._drawn("data", seed=101)
        wrong = self._drawn("wrong", seed=102, swap=WRONG_LABELS)
        return Data(right, wrong)

    def _drawn(self, name: str, *, seed: int, swap: Mapping[int, int] | None = None) -> Path:
        settings = self._settings
        return draw_dataset(
            settings.out / name,
            train=settings.train_images,
            val=settings.gate_images,
            size=settings.input_size,
            seed=seed,
            swap_labels=swap,
        )

    def train_next(self, data: Data) -> Path:
        """Fine-tunes the weights of 1.0 for 1.1."""
        out = self._settings.out / "weights" / "next.pt"
        return fine_tune(
            self._settings.weights, data.right, epochs=_FINE_TUNE_EPOCHS, out=out, lr=2e-4,
            size=self._settings.input_size,
        )  # fmt: skip

    def train_wrong(self, data: Data) -> Path:
        """Fine-tunes on the swapped labels for 1.3."""
        out = self._settings.out / "weights" / "wrong.pt"
        return fine_tune(
            self._settings.weights, data.wrong, epochs=_WRONG_EPOCHS, out=out, lr=2e-3,
            size=self._settings.input_size,
        )  # fmt: skip

    def build(
        self,
        release: str,
        weights: Path,
        data: Path,
        *,
        size: int,
        policy: Path | None,
        overrides: Mapping[str, str] | None = None,
    ) -> Path:
        """Builds a release for every class; returns its folder.

        Raises:
            SystemExit: A budget was missed without an override.
        """
        out = self._settings.out / "builds" / release
        options = BuildOptions(
            weights=weights, data=data, classes=self._classes, out=out, model=MODEL,
            release=release, release_counter=int(release.replace(".", "")), policy=policy,
            input_size=size, overrides={**_SMALL_MODEL, **(overrides or {})}, latency_seconds=3.0,
            cache=self._settings.out / "steps",
            rungs=(),  # a search for float blocks would take minutes
        )  # fmt: skip
        results = run(options, self._progress)
        for each in results:
            _show(release, each)
            if each.decision.verdict in {"missed", "undecided"}:
                what = f"build {release} for {each.device_class} {each.decision.verdict}"
                raise SystemExit(f"demo: {what}: {each.decision.reasons[0]}")
        if policy is None:
            self._set_budgets(results)
        return out

    def _set_budgets(self, results: list[BuildResult]) -> None:
        """Sets the classes' latency budgets from what 1.0 takes on this machine."""
        measured = {each.device_class: each.report["built"] for each in results}
        self._classes = [
            _with_latency(each, measured[each.name]["latency_p95_ms"] * _LATENCY_ROOM)
            for each in self._classes
        ]


def _with_latency(device_class: DeviceClass, limit_ms: float) -> DeviceClass:
    budgets = replace(device_class.budgets, latency_p95_ms=round(limit_ms, 1))
    return replace(device_class, budgets=budgets)


def _show(release: str, result: BuildResult) -> None:
    built = result.report["built"]
    print(
        f"   {release} {result.device_class}: {result.decision.verdict}, "
        f"mAP50-95 {result.report['float']['map50_95']:.3f} → {built['map50_95']:.3f}, "
        f"p95 {built['latency_p95_ms']:.1f} ms, {built['size_bytes'] / 2**20:.1f} MiB"
    )
