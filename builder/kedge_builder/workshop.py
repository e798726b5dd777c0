"""What the classes of one build share: data, cache, and float models exported once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from kedge_builder.cache import Cache
from kedge_builder.data.datasets import Data
from kedge_builder.measure.surveys import Surveyor
from kedge_builder.models import export
from kedge_builder.models.weights import Trained
from kedge_builder.progress import Progress
from kedge_builder.quantize.floatzone import find_float_zone
from kedge_builder.quantize.qdq import prepare_float
from kedge_builder.quantize.quantizer import Quantizer
from kedge_builder.quantize.source import Source
from kedge_builder.recipe import BuildOptions
from kedge_shared.device_classes import DeviceClass
from kedge_shared.manifest import InputSpec, OutputSpec


@dataclass
class Workshop:
    """State of one run of ``kedge build``.

    Attributes:
        options: What is asked for.
        trained: The model as it was given.
        data: Split and curated.
        cache: Of steps.
        progress: Shows stages.
    """

    options: BuildOptions
    trained: Trained
    data: Data
    cache: Cache
    progress: Progress
    _sources: dict[tuple[str, int, int], Source] = field(default_factory=dict)

    def source(
        self, size: int, trained: Trained | None = None, *, opset: int | None = None
    ) -> Source:
        """Returns the float model at an input size, exported once.

        Args:
            size: Pixels.
            trained: A pruned or adapted model instead of the given one.
            opset: The class's bound, if it has one.
        """
        import onnx

        model = trained or self.trained
        written = export.opset_of(opset)
        key = model.sha256, size, written
        if key not in self._sources:
            head = export.heads_of(model.model)[0]

            def make(out: Path) -> None:
                with self.progress.stage(f"exporting ONNX at {size} px"):
                    graph = prepare_float(export.to_onnx(model.model, size, head, opset))
                    (out / "float.onnx").write_bytes(graph.SerializeToString())

            inputs = {"weights": model.sha256, "size": size, "head": head, "opset": written,
                      "method": export.METHOD}  # fmt: skip
            folder, _ = self.cache.files("exported", inputs, make)
            path = folder / "float.onnx"
            graph = onnx.load(str(path))
            self._sources[key] = Source(
                path=path,
                onnx=graph,
                zone=find_float_zone(graph),
                given=InputSpec(height=size, width=size),
                read=OutputSpec(head=head, classes=model.classes),
            )
        return self._sources[key]

    def quantizer(self, device_class: DeviceClass, source: Source) -> Quantizer:
        """Returns what quantizes ``source`` for a class."""
        return Quantizer(device_class, source, self.data.calibrate, self.cache, self.progress)

    def surveyor(self, device_class: DeviceClass, source: Source) -> Surveyor:
        """Returns what measures the accuracy of engines made from ``source``."""
        return Surveyor(device_class, source, self.data, self.cache, self.progress)
