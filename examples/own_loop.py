"""A loop of one's own, with the engine changed under it.

    python examples/own_loop.py
    python examples/own_loop.py --engines first.onnx second.onnx --classes cat,dog --size 640

Without engines it exports the demo's committed detector, which needs the builder's extra. Frames
come from ``--video``, or are drawn.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

#: Run by its path, only this folder is searched for modules.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kedge_agent.engine_file import open_engine
from kedge_agent.errors import EngineError
from kedge_agent.hotswap import HotEngine
from kedge_shared.errors import KedgeError

Frame = npt.NDArray[np.uint8]


def frames(video: Path | None) -> Iterator[Frame]:
    """Yields (h, w, 3) BGR frames for ever: a video's, or drawn ones."""
    if video is None:
        from demo.shapes import scene

        rng = np.random.default_rng(0)
        yield from itertools.cycle([scene(rng, 160)[0] for _ in range(16)])
    while True:
        capture = cv2.VideoCapture(str(video))
        read, image = capture.read()
        if not read:
            raise EngineError(f"{video} cannot be read")
        while read:
            yield np.asarray(image, np.uint8)
            read, image = capture.read()


def change(hot: HotEngine, path: Path, classes: list[str], size: int) -> None:
    """What another thread does at any time: load, swap, and let go of the old engine."""
    hot.load(lambda: open_engine(path, classes=classes, size=size))  # slow, and nobody waits
    hot.swap()  # the next frame is the new engine's
    hot.wait_answered(10)
    # Here one looks at the new engine's answers, and says hot.roll_back() if they are no good.
    hot.drop("previous")  # its memory goes back


def run(engines: list[Path], classes: list[str], sizes: list[int], video: Path | None, count: int,
        fps: float) -> Counter[str]:  # fmt: skip
    """Answers ``count`` frames while the engine is changed; returns frames by engine."""
    hot = HotEngine(open_engine(engines[0], classes=classes, size=sizes[0]))
    changing = threading.Thread(target=change, args=(hot, engines[1], classes, sizes[1]))
    answered: Counter[str] = Counter()
    for at, frame in enumerate(frames(video)):
        if at == count // 4:
            changing.start()
        if at >= count and not changing.is_alive():
            break
        answer = hot.infer(frame)  # exactly one engine, always the whole frame
        if answer is not None:
            if answer.slot.release not in answered:
                print(f"frame {at}: {answer.slot.release} answers, {len(answer.found.rows)} "
                      f"objects in {answer.found.ms:.1f} ms")  # fmt: skip
            answered[answer.slot.release] += 1
        time.sleep(1 / fps)
    print(f"{sum(answered.values())} of {at} frames answered: {dict(answered)}; "
          f"the switch took {hot.switch_us:.0f} µs")  # fmt: skip
    hot.close()
    return answered


def main() -> int:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", nargs=2, type=Path)
    parser.add_argument("--classes", default="circle,square,triangle,star")
    parser.add_argument("--size", type=int, default=640, help="input of --engines, pixels")
    parser.add_argument("--video", type=Path)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--fps", type=float, default=30)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        engines, sizes = given.engines, [given.size, given.size]
        try:
            if engines is None:
                from demo.engines import export

                sizes = [160, 320]  # the input size may change with the engine
                engines = export(Path(folder), sizes)
            run(engines, given.classes.split(","), sizes, given.video, given.frames, given.fps)
        except ImportError as error:
            print(f"own_loop: {error}; pip install 'kedge[builder]', or give --engines",
                  file=sys.stderr)  # fmt: skip
            return 2
        except KedgeError as error:
            print(f"own_loop: {error}", file=sys.stderr)
            return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
