"""What shall be done to a float model: how ranges are found, and which blocks stay float. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kedge_builder.quantize.ranges import Calibrator

Precision = Literal["int8", "half", "float"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One way of quantizing.

    Attributes:
        calibrator: How ranges of activations are found; ``None`` where the quantizer has its own
            (NNCF), and for float.
        bias_correction: Whether the shift that rounded weights cause is taken out of the biases.
        float_blocks: Blocks that stay float besides the float zone.
        refit: Whether the last convolutions, which stay float, are fitted to what the quantized
            layers give them.
        trained: Whether the weights were taught to bear rounding before
            (:mod:`kedge_builder.compress.qat`); they are the source's, and the plan only says it.
        precision: ``int8``, ``half`` for FP16, or ``float`` for the model as it is.
    """

    calibrator: Calibrator | None = None
    bias_correction: bool = True
    float_blocks: tuple[str, ...] = ()
    refit: bool = False
    trained: bool = False
    precision: Precision = "int8"

    @property
    def name(self) -> str:
        """Word for tables."""
        if self.precision != "int8":
            return "float16" if self.precision == "half" else "float"
        words: list[str] = ["weights trained"] if self.trained else []
        words.append(self.calibrator or "nncf")
        if self.calibrator and self.bias_correction:
            words.append("bias-corrected")
        if self.refit:
            words.append("head refitted")
        if self.float_blocks:
            words.append(f"float: {' '.join(self.float_blocks)}")
        return ", ".join(words)
