"""A full or read-only disk, a real one: the updater survives, says so, and the loop goes on."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import httpx
import msgspec
import pytest

from kedge_agent import identity, start
from kedge_agent.blobs import BlobStore
from kedge_agent.disk import write_whole
from kedge_agent.downloads import Downloader
from kedge_agent.journal import Journal, open_read_only
from kedge_agent.slots import read_slots
from kedge_agent.state import State
from kedge_agent.tuf_client import ImageRepository
from kedge_shared.errors import StorageError
from kedge_shared.ids import sha256_hex
from kedge_shared.phases import Phase
from tests.agent.test_journal import report
from tests.sim.board import SimBoard, settled
from tests.sim.engine import SimDetector
from tests.sim.world import World


def mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


@pytest.fixture
def small(board: SimBoard) -> Iterator[Path]:
    """The board's state on a file system of its own, 3 MiB."""
    folder = board.folder / "state"
    folder.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=3m,mode=700", "tmpfs", str(folder)):
        pytest.skip("this test may not mount file systems here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    ballast = folder / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        return ballast


def serves(board: SimBoard) -> str:
    assert board.runner.active is not None
    return board.runner.active.release


def test_a_disk_that_fills_up_and_is_emptied_again(
    running: World, board: SimBoard, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board.install()
    running.publish("1.1", 11)
    running.roll_out("1.1")
    filled_at, served = 0.0, set[str]()

    def done(state: State) -> bool:
        nonlocal filled_at
        served.add(serves(board))
        if not filled_at:
            fill(small)
            filled_at = time.monotonic()
        elif time.monotonic() - filled_at > 1.5:
            assert served == {"1.0"} or not (small / "ballast").exists()
            (small / "ballast").unlink(missing_ok=True)
        return settled(state) and state.active is not None and state.active.release == "1.1"

    board.run(done, 90)
    assert serves(board) == "1.1", "it goes on when there is room again"
    assert "cannot be written" in capsys.readouterr().err


def test_a_start_on_a_full_disk_is_refused_and_said(
    running: World, board: SimBoard, small: Path
) -> None:
    """The supervisor starts it again and again; the runner needs no room to start."""
    board.install()
    fill(small)
    with pytest.raises(StorageError, match="cannot be opened"):
        board.rest(1)
    assert read_slots(small).active == board.state.active
    (small / "ballast").unlink()
    assert board.rest().active == board.state.active


def test_a_disk_that_others_fill_while_it_downloads(
    running: World, board: SimBoard, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.install()
    running.publish("1.1", 11, engine=bytes(1_500_000))
    running.roll_out("1.1")
    # The check before the download saw room that somebody else has taken meanwhile.
    monkeypatch.setattr("kedge_agent.housekeeping.free_bytes", lambda _: 10**9)
    (small / "others").write_bytes(bytes(1_700_000))
    state = board.run(lambda s: s.deployment is not None and s.deployment.phase is Phase.REFUSED)
    assert state.deployment is not None
    verdict = state.deployment.verdict
    assert (verdict.code, verdict.cause) == ("disk", "environment")
    assert "disk is full" in verdict.reason
    assert (serves(board), state.quarantine) == ("1.0", {})


def test_a_read_only_disk_starts_the_loop_and_keeps_it(
    running: World, board: SimBoard, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.install()
    running.publish("1.1", 11)
    running.roll_out("1.1")
    assert mount("-o", "remount,ro", str(small))
    try:
        monkeypatch.setattr(start, "load_detector", lambda slot, *_: SimDetector(slot.release))
        begun = start.load_at_start(small, read_slots(small), BlobStore(small / "blobs"), {}, 1)
        assert begun.active is not None
        assert begun.active.slot.release == "1.0"
        assert serves(board) == "1.0"
    finally:
        mount("-o", "remount,rw", str(small))
    board.run(lambda s: settled(s) and s.active is not None and s.active.release == "1.1", 90)


def read_only(folder: Path) -> Callable[[], None]:
    assert mount("-o", "remount,ro", str(folder))
    return lambda: assert_mounted(mount("-o", "remount,rw", str(folder)))


def full(folder: Path) -> Callable[[], None]:
    return fill(folder).unlink


def assert_mounted(done: bool) -> None:
    assert done


@pytest.mark.parametrize("spoil", [full, read_only])
def test_each_writer_says_so_and_what_was_there_stays(
    running: World, board: SimBoard, small: Path, spoil: Callable[[Path], Callable[[], None]]
) -> None:
    """Journal, spool of reports, downloads, targets and trusted metadata, each by itself."""
    board.install()
    me, body = identity.load(small), b"an engine" * 30_000
    assert me is not None
    running.publish("1.1", 11)
    access = running.context.access.issue(me.device, me.signer.public_key.keyid).token
    # Open, as the updater has it; a disk with such a file cannot be made read-only here.
    held = Journal(small) if spoil is full else None
    with (
        closing(held) if held else nullcontext(),
        closing(ImageRepository(running.url, access, small / "tuf", running.trust.root)) as tuf,
    ):
        writers = {
            "journal": lambda: saved(held, small),
            "spool": lambda: queued(held, small, reports),
            "blob": lambda: write_whole(small / "blobs" / sha256_hex(body), body),
            "download": lambda: asyncio.run(download(small, body * 2)),
            "metadata": lambda: tuf.refresh(time.time()),
        }
        before, state, reports = files(small), open_read_only(small), 600
        assert state is not None
        mend = spoil(small)
        try:
            for name, write in writers.items():
                with pytest.raises(StorageError, match="full|cannot be (written|opened)"):
                    write()
                    pytest.fail(f"{name} does not notice")
            assert open_read_only(small) == state
            assert state.active is not None
            assert BlobStore(small / "blobs").open_verified(state.active.engine).length
        finally:
            mend()
        assert files(small) == before, "nothing new, nothing half"
        reports = 5
        for write in writers.values():
            write()
        assert files(small).keys() > before.keys()


def test_a_torn_file_on_a_read_only_disk_is_said(small: Path) -> None:
    body = b"an engine" * 100
    (small / "blobs").mkdir()
    (small / "blobs" / sha256_hex(body)).write_bytes(bytes(len(body)))
    mend = read_only(small)
    try:
        with pytest.raises(StorageError, match="cannot be written"):
            asyncio.run(download(small, body))
    finally:
        mend()
    asyncio.run(download(small, body))
    assert (small / "blobs" / sha256_hex(body)).read_bytes() == body


def saved(held: Journal | None, folder: Path) -> None:
    with nullcontext(held) if held else closing(Journal(folder)) as journal:
        large = {str(at): "x" * 300 for at in range(500)}
        journal.save(msgspec.structs.replace(journal.state, quarantine=large))


def queued(held: Journal | None, folder: Path, count: int) -> None:
    with nullcontext(held) if held else closing(Journal(folder)) as journal:
        for at in range(count):
            journal.queue(report(at))


async def download(folder: Path, body: bytes) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 65536):
            yield body[at : at + 65536]

    answer = httpx.MockTransport(lambda _: httpx.Response(200, content=pieces()))
    async with httpx.AsyncClient(transport=answer, base_url="http://127.0.0.1") as http:
        store = BlobStore(folder / "blobs")
        fetching = Downloader(http, store, folder / "partial", lambda _: None)
        await fetching.fetch(sha256_hex(body), len(body))


def files(folder: Path) -> dict[str, bytes]:
    """Everything but the journal, which SQLite keeps, and what fills the disk."""
    return {
        str(each.relative_to(folder)): each.read_bytes()
        for each in folder.rglob("*")
        if each.is_file() and not each.name.startswith(("journal.db", "ballast"))
    }
