"""``kedge bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def bench(
    builds: Annotated[list[Path], typer.Argument(help="Folders of builds, one for each runtime.")],
    frames: Annotated[
        Path | None,
        typer.Option(
            "--frames", exists=True, file_okay=False, help="Folder of images; default: drawn noise."
        ),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, max=64)] = 1,
    seconds: Annotated[float, typer.Option("--seconds", min=1, max=3600)] = 30.0,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Say which of several builds is quickest on this board, with an interval.

    The builds are your own: their hashes are checked against their manifests, their signatures are
    not. Exit status: 0 one is quickest, 2 bad input, 4 undecided.
    """
    from kedge_agent.bench import board
    from kedge_shared import wire
    from kedge_shared.errors import UndecidedError

    found = board.measure(builds, _frames(frames), threads=threads, seconds=seconds)
    if as_json:
        print(wire.encode(found).decode())
    else:
        for each in found.standings:
            print(
                f"{each.build}  {each.runtime}  p50 {each.p50_ms:.2f} ms  p95 {each.p95_ms:.2f} ms"
                f"  x{each.slower:.2f} ({each.low:.2f} … {each.high:.2f})"
            )
        for name, why in found.skipped.items():
            print(f"{name}  not measured: {why}")
        print(found.verdict)
    if found.verdict.startswith("undecided"):
        raise typer.Exit(UndecidedError.exit_code)


def _frames(folder: Path | None) -> list[Any]:
    from kedge_agent.bench import board
    from kedge_shared.errors import InputError

    if folder is None:
        return list(board.noise((1080, 1920)))
    try:
        import cv2
    except ImportError:
        raise InputError("images need OpenCV", "pip install 'kedge[agent,video]'") from None

    paths = sorted(each for each in folder.iterdir() if each.suffix.lower() in {".jpg", ".png"})
    found = [image for each in paths[:64] if (image := cv2.imread(str(each))) is not None]
    if not found:
        raise InputError(f"{folder} holds no image", "name a folder of .jpg or .png files")
    return found
