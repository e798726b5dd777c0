"""Installing from a stick: the same checks as from the server, and none by the stick's own word."""

from __future__ import annotations

import json
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kedge_agent.commands.protocol import Accepted, Declined, InstallBundle
from kedge_agent.settings import BundleSettings
from kedge_server.operator import bundle
from kedge_shared.errors import InputError, ServiceError
from kedge_shared.ids import sha256_hex
from kedge_shared.phases import Phase
from tests.sim.board import SimBoard, settled
from tests.sim.world import World

IMAGE_ONLY = BundleSettings(without_assignment=True)


def make(world: World, release: str, *devices: str, name: str = "stick.kedge") -> Path:
    out = world.home / name
    bundle.make(world.operator, world.operator.release("shapes", release), [], devices, out)
    return out


def unpacked(stick: Path) -> Path:
    folder = stick.with_suffix(".folder")
    with tarfile.open(stick) as archive:
        archive.extractall(folder, filter="data")
    return folder


def offline(board: SimBoard, stick: Path, **changes: Any) -> Any:
    """Has a person install a stick on a board whose server is away; returns the answer."""
    for name, value in changes.items():
        setattr(board, name, value)
    return board.command(InstallBundle(str(stick)), offline=True)


def serves(board: SimBoard) -> str:
    assert board.runner.active is not None
    assert board.state.active is not None
    assert board.runner.active.release == board.state.active.release
    return board.state.active.release


@pytest.fixture
def stick(running: World, board: SimBoard) -> Path:
    """A board on 1.0, and 1.1 on a stick with the board's assignment."""
    board.install()
    running.publish("1.1", 11)
    running.roll_out("1.1")
    return make(running, "1.1", "cam-1")


@pytest.fixture
def bare(running: World, board: SimBoard) -> Path:
    """A board on 1.0, and 1.1 on a stick without any assignment."""
    board.install()
    running.publish("1.1", 11)
    return make(running, "1.1")


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_board_without_network_installs_and_tells_later(
    running: World, board: SimBoard, stick: Path, as_folder: bool
) -> None:
    preflights = len(board.preflights)
    answer = offline(board, unpacked(stick) if as_folder else stick)
    assert isinstance(answer, Accepted)
    assert serves(board) == "1.1"
    assert len(board.preflights) == preflights + 1, "tried like one from the server"
    board.rest()
    told = running.operator.device_deployments("cam-1")
    assert next(each for each in told if each.release == "1.1").phase is Phase.CONFIRMED
    assert serves(board) == "1.1"


def test_nothing_that_is_there_is_copied_again(
    running: World, board: SimBoard, stick: Path
) -> None:
    before = board.state.bytes_downloaded
    offline(board, stick)
    grown = board.state.bytes_downloaded - before
    engine = (running.home / "builds/1.1/x86-onnxruntime/model.onnx").stat().st_size
    references = (running.home / "builds/1.1/x86-onnxruntime/golden.json").stat().st_size
    assert grown == engine + references, "the golden frame is on the board already"


def test_without_an_assignment_only_where_the_board_allows_it(
    running: World, board: SimBoard, bare: Path
) -> None:
    answer = offline(board, bare)
    assert isinstance(answer, Declined)
    assert (answer.exit_status, "no assignment for cam-1" in answer.what) == (2, True)
    assert serves(board) == "1.0"
    assert isinstance(offline(board, bare, bundles=IMAGE_ONLY), Accepted)
    assert serves(board) == "1.1"
    board.rest()
    assert serves(board) == "1.1", "the server's old assignment does not take it back"


def test_without_an_assignment_a_board_does_not_go_back(
    running: World, board: SimBoard, bare: Path
) -> None:
    old = make(running, "1.0", name="old.kedge")
    offline(board, bare, bundles=IMAGE_ONLY)
    assert serves(board) == "1.1"
    answer = offline(board, old)
    assert isinstance(answer, Declined)
    assert (answer.exit_status, "is older than 1.1" in answer.what) == (5, True)
    assert serves(board) == "1.1"


def altered(folder: Path, name: str, change: Any) -> None:
    path = next(folder.glob(name))
    path.write_bytes(change(path.read_bytes()))


def flip(data: bytes) -> bytes:
    return data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]


def other_release(data: bytes) -> bytes:
    """Has the table name another manifest than the builders list."""
    table = json.loads(data)
    table["builds"][0]["manifest"]["sha256"] = "0" * 64
    table["builds"][0]["manifest"]["path"] = "models/shapes/9.9/x86-onnxruntime/manifest.json"
    return json.dumps(table).encode()


@pytest.mark.parametrize(
    ("name", "change", "status"),
    [
        ("metadata/timestamp.json", flip, 5),
        ("metadata/*.snapshot.json", flip, 5),
        ("metadata/*.targets.json", flip, 5),
        ("bundle.json", other_release, 5),
        ("bundle.json", lambda _: b"{}", 2),
        ("bundle.json", lambda _: b" " * 300_000, 2),
    ],
)
def test_altered_documents_are_refused_and_the_board_goes_on(
    running: World, board: SimBoard, bare: Path, name: str, change: Any, status: int
) -> None:
    folder = unpacked(bare)
    altered(folder, name, change)
    answer = offline(board, folder, bundles=IMAGE_ONLY)
    assert isinstance(answer, Declined)
    assert answer.exit_status == status
    assert serves(board) == "1.0"


def test_every_altered_artifact_is_refused(running: World, board: SimBoard, bare: Path) -> None:
    known = {each.name for each in (board.folder / "state" / "blobs").iterdir()}
    folder, built = unpacked(bare), running.home / "builds/1.1/x86-onnxruntime"
    # Where it came from is for people; no board asks for it.
    for each in sorted(set(built.iterdir()) - set(built.glob("provenance*"))):
        path = folder / "artifacts" / sha256_hex(each.read_bytes())
        # What an earlier try brought whole is not read from the stick again.
        for blob in (board.folder / "state" / "blobs").iterdir():
            if blob.name not in known:
                blob.unlink()
        good = path.read_bytes()
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        offline(board, folder, bundles=IMAGE_ONLY)
        assert serves(board) == "1.0", each.name
        path.write_bytes(good)
    offline(board, folder)
    assert serves(board) == "1.1", "and each was refused for that alone"


def test_another_boards_assignment_is_not_followed(
    running: World, board: SimBoard, stick: Path
) -> None:
    running.enrol("cam-2")
    running.operator.change_rollout(running.operator.rollouts()[0].id, "halt")
    running.roll_out("1.1")
    folder = unpacked(make(running, "1.1", "cam-2", name="two.kedge"))
    table = json.loads((folder / "bundle.json").read_bytes())
    table["devices"] = ["cam-1"]
    (folder / "bundle.json").write_text(json.dumps(table))
    (folder / "assignments/cam-2.json").rename(folder / "assignments/cam-1.json")
    answer = offline(board, folder)
    assert isinstance(answer, Declined)
    assert (answer.exit_status, "is for cam-2" in answer.what) == (5, True)
    assert serves(board) == "1.0"


def test_an_older_stick_than_the_board_knows_is_going_back(
    running: World, board: SimBoard, stick: Path
) -> None:
    def on(release: str) -> None:
        board.run(lambda s: settled(s) and s.active is not None and s.active.release == release)
        running.tick()

    on("1.1")  # over the network; the board hears of newer metadata than the stick's
    running.publish("1.2", 12)
    running.roll_out("1.2")
    on("1.2")
    answer = offline(board, stick)
    assert isinstance(answer, Declined)
    assert answer.exit_status == 5
    assert serves(board) == "1.2"


def test_expiry_holds_for_sticks_and_grace_is_what_the_board_says(
    running: World, board: SimBoard, bare: Path
) -> None:
    later = time.time() + 10 * 86400
    answer = offline(board, bare, bundles=IMAGE_ONLY, clock=lambda: later)
    assert isinstance(answer, Declined)
    assert (answer.exit_status, "not to be trusted" in answer.what) == (5, True)
    kind = replace(IMAGE_ONLY, grace_days=14)
    assert isinstance(offline(board, bare, bundles=kind), Accepted)
    assert serves(board) == "1.1"


def test_a_stick_that_is_pulled_ends_the_update(
    running: World, board: SimBoard, bare: Path
) -> None:
    folder = unpacked(bare)
    engine = max((folder / "artifacts").iterdir(), key=lambda each: each.stat().st_size)
    engine.unlink()
    assert isinstance(offline(board, folder, bundles=IMAGE_ONLY), Accepted)
    deployment = board.state.deployment
    assert deployment is not None
    assert (deployment.phase, deployment.verdict.cause) == (Phase.REFUSED, "environment")
    assert serves(board) == "1.0"


def test_a_bundle_for_other_boards_is_none_for_this(running: World, board: SimBoard) -> None:
    board.install()
    running.publish("1.1", 11, classes=("x86-openvino",))
    answer = offline(board, make(running, "1.1"), bundles=IMAGE_ONLY)
    assert isinstance(answer, Declined)
    assert "no build for x86-onnxruntime" in answer.what


# Making one.


def test_a_bundle_is_whole_or_not_there(running: World, monkeypatch: pytest.MonkeyPatch) -> None:
    running.publish("1.0", 10)
    out = make(running, "1.0")
    with pytest.raises(InputError, match="is there already"):
        make(running, "1.0")
    out.unlink()

    def breaks_off(*_: Any) -> Any:
        yield b"half"
        raise ServiceError("server broke off")

    monkeypatch.setattr(type(running.operator), "chunks", breaks_off)
    with pytest.raises(ServiceError):
        make(running, "1.0")
    monkeypatch.setattr(type(running.operator), "chunks", lambda *_: iter([b"other" * 9000]))
    with pytest.raises(ServiceError, match="other bytes than it lists"):
        make(running, "1.0")
    assert not [each for each in running.home.iterdir() if "stick" in each.name]


def test_a_bundle_names_what_it_cannot_hold(running: World) -> None:
    running.publish("1.0", 10)
    running.enrol("cam-7")
    release = running.operator.release("shapes", "1.0")
    with pytest.raises(InputError, match="no build for rk3588"):
        bundle.make(running.operator, release, ["rk3588"], [], running.home / "x")
    with pytest.raises(InputError, match="cam-7 is not assigned"):
        bundle.make(running.operator, release, [], ["cam-7"], running.home / "x")
