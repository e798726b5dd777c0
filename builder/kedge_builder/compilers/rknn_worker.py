"""Runs rknn-toolkit2 over a job: ``python rknn_worker.py JOB.json``.

This one file runs inside of the toolkit's own environment, which holds no Kedge (the toolkit pins
NumPy 1.26 and its kin). The toolkit prints what it likes; so answers go, a JSON line each, to what
was standard output at the start, and all that it prints to standard error.

Jobs (``step``):

``calibrate``: ``onnx``, ``target``, ``algorithm``, ``images`` (.npy files, (1, 3, h, w) uint8 RGB)
    Ranges of every tensor, into the current folder: ``net.model``, ``net.data``, ``net.cfg``.
``build``: ``float_tensors``, ``out``
    From those three to ``out``; tensors that are named stay in 16 bits.
``build_float``: ``onnx``, ``target``, ``out``
    The same without quantization.

With ``serve`` it then simulates: for each input (1, h, w, 3) uint8 on standard input, the outputs,
float32, one after the other, on standard output, behind a JSON line with their shapes.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Job = dict[str, Any]
#: No dependency on the machine's locale: the toolkit's files hold ASCII.
_ENCODING = "utf-8"


def main() -> None:
    """Does the job, or says in one line why not."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    job = json.loads(Path(sys.argv[1]).read_text(encoding=_ENCODING))
    try:
        built = _STEPS[job["step"]](job)
        _say(answers, {"done": job["step"]})
        if job.get("serve"):
            _simulate(built, answers)
    # Boundary: the toolkit raises plain exceptions with its whole log in them.
    except Exception as error:  # noqa: BLE001
        lines = [each for each in str(error).splitlines() if each.strip()]
        _say(answers, {"error": lines[-1] if lines else type(error).__name__})
        sys.exit(1)


def _calibrate(job: Job) -> None:
    listed = Path("images.txt")
    listed.write_text("".join(each + "\n" for each in job["images"]), encoding=_ENCODING)
    rknn = _opened(job)
    _done(rknn.hybrid_quantization_step1(dataset=str(listed)), "calibration")
    rknn.release()
    name = Path(job["onnx"]).stem
    for made, kept in ((f"{name}.model", "net.model"), (f"{name}.data", "net.data"),
                       (f"{name}.quantization.cfg", "net.cfg")):  # fmt: skip
        Path(made).rename(kept)
    listed.unlink()


def _build(job: Job) -> Any:
    from rknn.api import RKNN

    head = "custom_quantize_layers:"
    text = Path("net.cfg").read_text(encoding=_ENCODING)
    unknown = [each for each in job["float_tensors"] if f"\n    {each}:" not in text]
    if unknown:
        raise ValueError(f"{unknown[0]} is no tensor of the calibrated model")
    listed = "".join(f"\n    {each}: float16" for each in job["float_tensors"])
    text = text.replace(f"{head} {{}}", f"{head}{listed or ' {}'}", 1)
    Path("mixed.cfg").write_text(text, encoding=_ENCODING)
    rknn = RKNN(verbose=False)
    _done(rknn.hybrid_quantization_step2("net.model", "net.data", "mixed.cfg"), "the build")
    return _exported(rknn, job)


def _build_float(job: Job) -> Any:
    rknn = _opened(job)
    _done(rknn.build(do_quantization=False), "the build")
    return _exported(rknn, job)


def _opened(job: Job) -> Any:
    from rknn.api import RKNN

    rknn = RKNN(verbose=False)
    settings = {
        "mean_values": [[0, 0, 0]],
        "std_values": [[job["divisor"]] * 3],
        "target_platform": job["target"],
    }
    if "algorithm" in job:
        settings["quantized_algorithm"] = job["algorithm"]
    _done(rknn.config(**settings), "the configuration")
    _done(rknn.load_onnx(job["onnx"]), "reading the ONNX")
    return rknn


def _exported(rknn: Any, job: Job) -> Any:
    _done(rknn.export_rknn(job["out"]), "writing the model")
    return rknn


def _simulate(rknn: Any, answers: Any) -> None:
    import numpy as np

    _done(rknn.init_runtime(), "the simulator")
    given = sys.stdin.buffer
    while True:
        line = given.readline()
        if not line:
            return
        shape = json.loads(line.decode(_ENCODING))
        image = np.frombuffer(given.read(math.prod(shape)), dtype=np.uint8).reshape(shape)
        found = rknn.inference(inputs=[image], data_format=["nhwc"])
        found = [np.ascontiguousarray(each, dtype=np.float32) for each in found]
        _say(answers, {"shapes": [list(each.shape) for each in found]})
        for each in found:
            _write(answers, each.tobytes())


def _say(answers: Any, body: Job) -> None:
    _write(answers, json.dumps(body).encode(_ENCODING) + b"\n")


def _write(answers: Any, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[answers.write(view) :]


def _done(code: int | None, what: str) -> None:
    if code not in {0, None}:
        raise RuntimeError(f"{what} failed (code {code}); the toolkit's log says why")


_STEPS: dict[str, Callable[[Job], Any]] = {
    "calibrate": _calibrate,
    "build": _build,
    "build_float": _build_float,
}

if __name__ == "__main__":
    main()
