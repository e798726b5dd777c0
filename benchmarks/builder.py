"""The builder beside its peers: accuracy, latency and size of float, Kedge's INT8 and theirs.

    python benchmarks/builder.py [--json] [--model NAME=WEIGHTS,DATA,SIZE …] [--runtime NAME …]
        [--cache DIR] [--calibration-images 128] [--images N] [--seconds 6]
        [--build] [--tuned DIR/CLASS]

Without ``--model`` it takes the committed demo model on shapes that it draws. See docs/builder.md
for the public models and data. What is compared shares one run, one thread, images and decode.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: Run by its path, only this folder is searched for modules; ``demo`` and this package lie above.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import Row, as_object, as_table
from benchmarks.contest import entrants, open_shop, rows_of
from benchmarks.whole_builds import TUNED_TITLE, build_rows, tuned_rows
from demo.shapes import draw_dataset
from kedge_builder.cache import Cache
from kedge_builder.judge.ladder import read_rungs
from kedge_builder.progress import Progress
from kedge_builder.recipe import BuildOptions
from kedge_shared.device_classes import DeviceClass, catalogue
from kedge_shared.errors import InputError, KedgeError
from kedge_shared.machine import describe

DEMO_WEIGHTS = Path(__file__).resolve().parents[1] / "demo" / "weights" / "shapes_pico.pt"
_DEMO_SIZE = 160
_DEMO_TRAIN, _DEMO_VAL = 200, 200
_RUNTIMES = ("onnxruntime", "openvino")


@dataclass(frozen=True)
class Subject:
    """One model that is measured.

    Attributes:
        name: In the table.
        weights: Checkpoint.
        data: ``data.yaml``.
        size: Input, pixels.
    """

    name: str
    weights: Path
    data: Path
    size: int


def read_subject(given: str) -> Subject:
    """Reads ``NAME=WEIGHTS,DATA,SIZE``.

    Raises:
        InputError: It is nothing of the kind.
    """
    name, _, rest = given.partition("=")
    parts = rest.split(",")
    if not name or len(parts) != 3 or not parts[2].isdigit():
        raise InputError(f"model {given!r} is not NAME=WEIGHTS,DATA,SIZE")
    return Subject(name, Path(parts[0]), Path(parts[1]), int(parts[2]))


def demo_subject(folder: Path) -> Subject:
    """Draws shapes for the committed demo model."""
    data = draw_dataset(folder / "shapes", train=_DEMO_TRAIN, val=_DEMO_VAL, size=_DEMO_SIZE,
                        seed=1)  # fmt: skip
    return Subject("shapes pico 160", DEMO_WEIGHTS, data, _DEMO_SIZE)


def options_of(subject: Subject, given: argparse.Namespace, out: Path) -> BuildOptions:
    """Returns the options of a build of ``subject`` with the defaults of ``kedge build``."""
    options = BuildOptions(
        weights=subject.weights,
        data=subject.data,
        classes=classes_of(given.runtime),
        out=out,
        model="benchmark",
        release="0",
        release_counter=1,
        input_size=subject.size,
        images=given.images,
        latency_seconds=given.seconds,
        calibration_images=given.calibration_images,
        rungs=read_rungs(given.if_it_loses),
    )
    options.check()
    return options


def classes_of(runtimes: Sequence[str]) -> list[DeviceClass]:
    """Returns the x86 classes of the catalogue for ``runtimes``."""
    return [catalogue()[f"x86-{each}"] for each in runtimes]


def measure(given: argparse.Namespace, scratch: Path) -> list[Row]:
    """Returns all rows that were asked for."""
    subjects = [read_subject(each) for each in given.model or []] or [demo_subject(scratch)]
    cache, progress, rows = Cache(given.cache or scratch / "cache"), Progress(), list[Row]()
    for subject in subjects:
        options = options_of(subject, given, scratch / "out")
        shop = open_shop(options, progress, cache)
        for each in options.classes:
            title = f"{subject.name} {each.runtime.name}"
            found = entrants(shop, each)
            rows += rows_of(title, each.runtime.name, found, options.seed)
        if given.build:
            rows += build_rows(subject.name, options, scratch)
        if given.tuned and subject is subjects[0]:
            title = f"{subject.name} {TUNED_TITLE}"
            rows += tuned_rows(title, shop, given.tuned)
    return rows


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one object on standard output")
    parser.add_argument("--model", action="append", help="NAME=WEIGHTS,DATA,SIZE; repeatable")
    parser.add_argument("--runtime", nargs="+", choices=_RUNTIMES, default=_RUNTIMES)
    parser.add_argument("--cache", type=Path, help="folder of steps already done; default: none")
    parser.add_argument("--calibration-images", type=int, default=128)
    parser.add_argument("--images", type=int, help="of the gate split; default: all")
    parser.add_argument("--seconds", type=float, default=6, help="of timing, for each engine")
    parser.add_argument("--if-it-loses", default="mixed", help="as of kedge build")
    parser.add_argument("--build", action="store_true", help="time and memory of kedge build")
    parser.add_argument("--tuned", type=Path, help="DIR/CLASS of a kedge build --tune --prune-to")
    return parser.parse_args()


def main() -> int:
    """Measures and prints."""
    given = read_arguments()
    machine = describe()
    try:
        with tempfile.TemporaryDirectory(prefix="kedge-benchmark-") as scratch:
            rows = measure(given, Path(scratch))
    except KedgeError as error:
        print(f"builder: {error}", file=sys.stderr)
        return 2
    if given.json:
        print(as_object(machine, rows))
        return 0
    print(
        f"{machine}; targets of speed were set for a processor without VNNI at 640 px, one thread"
    )
    print(as_table(rows, "against float"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
