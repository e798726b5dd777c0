"""Which CUDA a board has, by what can be loaded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kedge_agent import cuda_libraries, facts, hardware
from tests.agent.board_trees import Tree, library, plant

#: Where packages of JetPack 6 and of a server put CUDA's runtime.
TARGET = "usr/local/cuda-12.6/targets/aarch64-linux/lib"


@pytest.mark.parametrize(
    ("tree", "told", "majors"),
    [
        ({}, None, ()),
        # Runtime packages without a toolkit, a container, Yocto, JetPack 5 and 4.
        ({f"{TARGET}/libcudart.so.12.6.77": b"", f"{TARGET}/libcudart.so.12": b""},
         "12.6.77", (12,)),
        ({"usr/lib/libcudart.so.12": b""}, "12", (12,)),
        ({library("libcudart.so.11.0"): b"", library("libcudart.so.11.4.298"): b""},
         "11.4.298", (11,)),
        ({"usr/local/cuda/lib64/libcudart.so.10.2": b""}, "10.2", (10,)),
        # Wherever ldconfig was told to look.
        ({"etc/ld.so.conf.d/x.conf": b"# ours\n/opt/cuda/lib\n",
          "opt/cuda/lib/libcudart.so.12": b""}, "12", (12,)),
        # The alternative was moved to another toolkit; 12 is still what TensorRT finds.
        ({"usr/local/cuda/version.json": b'{"cuda": {"version": "13.0.48"}}',
          f"{TARGET}/libcudart.so.12": b""}, "12", (12,)),
        ({"usr/local/cuda-13.0/lib64/libcudart.so.13.0.48": b"",
          f"{TARGET}/libcudart.so.12": b""}, "13.0.48", (13, 12)),
        ({"usr/local/cuda/version.json": b'{"cuda": {"version": "13.0.48"}}'}, "13.0.48", (13,)),
    ],
)  # fmt: skip
def test_cuda_is_what_can_be_loaded(
    tmp_path: Path, tree: Tree, told: str | None, majors: tuple[int, ...]
) -> None:
    found = facts.gather(plant(tmp_path, tree), {}, "aarch64", lambda: None)
    assert (found.libraries.get("cuda"), found.cuda) == (told, majors)


def test_of_several_cudas_the_one_that_dlopen_takes_is_told_first(tmp_path: Path) -> None:
    plant(tmp_path, {f"{TARGET}/libcudart.so.12.6.77": b"", library("libcudart.so.13"): b""})
    (tmp_path / TARGET / "libcudart.so").symlink_to("libcudart.so.12.6.77")
    found = hardware.look(tmp_path)
    assert (found.libraries["cuda"], found.cuda) == ("12.6.77", (12, 13))


def test_cuda_of_a_wheel_and_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path, {"site/nvidia/cuda_runtime/lib/libcudart.so.12": b"",
                     "mine/libcudart.so.19": b""})  # fmt: skip
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    monkeypatch.setenv("LD_LIBRARY_PATH", f":{tmp_path / 'mine'}")
    assert {"12", "19"} <= set(cuda_libraries.versions(Path("/")))
    assert cuda_libraries.versions(tmp_path) == (), "another root is another machine"
