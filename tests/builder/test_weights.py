"""Checkpoints are programs: none of a stranger's is run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from kedge_builder.models.weights import load
from kedge_shared.errors import InputError
from tests.conftest import FIXTURE


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    "function_and_arguments",
    [
        (os.system, "touch {proof}"),
        (eval, "open('{proof}', 'w')"),
        (exec, "open('{proof}', 'w')"),
        (__import__, "os"),
        (torch.hub.load, "x", "y"),
        (torch.load, "{proof}"),
    ],
)
def test_a_hostile_checkpoint_runs_nothing(
    tmp_path: Path, function_and_arguments: tuple[Any, ...]
) -> None:
    proof = tmp_path / "proof"
    function, *arguments = function_and_arguments
    given = [each.format(proof=proof) if isinstance(each, str) else each for each in arguments]
    path = tmp_path / "evil.pt"
    torch.save({"model": Evil(function, *given)}, path)
    with pytest.raises(InputError, match=r"evil\.pt"):
        load(path)
    assert not proof.exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_a_hostile_old_style_pickle_runs_nothing(tmp_path: Path, protocol: int) -> None:
    proof, path = tmp_path / "proof", tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps(Evil(os.system, f"touch {proof}"), protocol=protocol))
    with pytest.raises(InputError):
        load(path)
    assert not proof.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04" + b"\0" * 100])
def test_junk_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "junk.pt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"junk\.pt are no readable checkpoint"):
        load(path)


def test_weights_that_were_cut_off_are_told_in_one_sentence(tmp_path: Path) -> None:
    """Torch's own words go on to ask for a report of a bug in it."""
    cut = tmp_path / "cut.pt"
    cut.write_bytes(FIXTURE.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"checkpoint: [^.]+; copy the file anew$"):
        load(cut)


def test_a_hostile_old_style_checkpoint_runs_nothing(tmp_path: Path) -> None:
    proof, path = tmp_path / "proof", tmp_path / "evil.pt"
    body = {"model": Evil(os.system, f"touch {proof}")}
    torch.save(body, path, _use_new_zipfile_serialization=False)
    with pytest.raises(InputError):
        load(path)
    assert not proof.exists()


def test_missing_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load(tmp_path / "none.pt")


def test_a_checkpoint_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save({"state_dict": {"w": torch.zeros(3)}}, path)
    with pytest.raises(InputError, match="no detection model"):
        load(path)


def test_the_fixture_loads_with_its_classes() -> None:
    trained = load(FIXTURE)
    assert trained.classes == ("circle", "square", "triangle", "star")
    assert not trained.model.training
    assert next(trained.model.parameters()).dtype is torch.float32


def test_the_restricted_load_gives_the_weights_that_torch_would() -> None:
    theirs = torch.load(FIXTURE, map_location="cpu", weights_only=False)["model"].float()
    ours = load(FIXTURE).model
    for (name, a), (_, b) in zip(
        theirs.state_dict().items(), ours.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name
