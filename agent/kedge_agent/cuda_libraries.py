"""Which CUDA a board has: what can be loaded, and not what an installer left in a text.

A board may have CUDA's runtime without its toolkit (runtime packages, containers, Yocto, wheels),
and a toolkit that nothing of TensorRT uses.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from kedge_agent.sensors import files
from kedge_shared.versions import major, numbers

_NAME = "libcudart.so"
#: Where vendors' packages put libraries.
PLACES = ("usr/lib/*-linux-gnu", "usr/lib64", "usr/lib", "usr/local/lib")
#: Where CUDA's own do, a folder for each release.
_TOOLKITS = ("usr/local/cuda/lib64", "usr/local/cuda*/lib64", "usr/local/cuda*/targets/*/lib")


def versions(root: Path, own: Sequence[Path] | None = None) -> tuple[str, ...]:
    """Returns the CUDA runtimes that can be loaded, one for each major.

    The first is the one that ``dlopen`` takes for ``libcudart.so``, else the newest. Without any
    it is what the toolkit's text says.

    Args:
        root: Of the file system.
        own: Folders that this process loads from besides; those of the environment and of its
            wheels, by default, if ``root`` is the real one.
    """
    folders = (*_of_process(root, own), *_of_loader(root), *_of_packages(root))
    there = [path for folder in folders for path in files.found(folder, f"{_NAME}*")]
    taken = (path.resolve() for path in there if path.name == _NAME)
    newest = sorted(there, key=lambda each: numbers(_version(each)), reverse=True)
    told = (_version(each) for each in (*taken, *newest))
    by_major: dict[int | None, str] = {}
    for each in filter(None, told):
        # Of one library the longest name tells most: libcudart.so.12 is libcudart.so.12.6.77.
        if len(each) > len(by_major.setdefault(major(each), each)):
            by_major[major(each)] = each
    return tuple(by_major.values()) or tuple(filter(None, (_toolkit(root),)))


def _version(path: Path) -> str:
    """Returns the version in a library's name; empty where it has none."""
    return ".".join(map(str, numbers(path.name.removeprefix(f"{_NAME}."))))


def _of_process(root: Path, own: Sequence[Path] | None) -> Iterator[Path]:
    if own is not None:
        yield from own
    elif root == Path("/"):
        named = os.environ.get("LD_LIBRARY_PATH", "")
        yield from (Path(each) for each in named.split(":") if each)
        for each in sys.path:
            yield from Path(each).glob("nvidia/*/lib")


def _of_loader(root: Path) -> Iterator[Path]:
    """Yields the folders that ldconfig was told of, in its order."""
    for path in files.found(root, "etc/ld.so.conf.d/*.conf"):
        lines = (each.strip() for each in files.text(path).splitlines())
        yield from (root / each.lstrip("/") for each in lines if each.startswith("/"))


def _of_packages(root: Path) -> Iterator[Path]:
    for place in (*PLACES, *_TOOLKITS):
        yield from files.found(root, place)


def _toolkit(root: Path) -> str:
    """Returns the toolkit's version; JetPack 4 tells it in a text, later ones in JSON."""
    folder = root / "usr/local/cuda"
    try:
        told = json.loads(files.text(folder / "version.json"))["cuda"]["version"]
        return told if isinstance(told, str) else ""
    except (ValueError, KeyError, TypeError, RecursionError):
        found = re.search(r"CUDA Version (\d+(?:\.\d+)+)", files.text(folder / "version.txt"))
        return found[1] if found else ""
