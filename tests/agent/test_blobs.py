"""Blobs: the bytes that were hashed are the bytes that are loaded."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge_agent import blobs
from kedge_agent.blobs import BlobStore
from kedge_shared.errors import InputError, StorageError, TrustError
from kedge_shared.ids import sha256_hex
from tests.sim.gpu import old_kernel

BODY = bytes(range(256)) * 20
NAME = sha256_hex(BODY)


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    (tmp_path / NAME).write_bytes(BODY)
    return BlobStore(tmp_path)


def test_what_was_stored_comes_back(store: BlobStore) -> None:
    with store.open_verified(NAME, len(BODY)) as blob:
        assert bytes(blob.view) == BODY
        assert Path(blob.path).read_bytes() == BODY


def test_kernels_of_jetsons_map_it_too(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmap, "mmap", old_kernel.mapped)
    with store.open_verified(NAME) as blob:
        assert bytes(blob.view) == BODY


@given(at=st.integers(0, len(BODY) - 1), bit=st.integers(0, 7))
def test_one_flipped_bit_is_refused(tmp_path_factory, at: int, bit: int) -> None:
    folder = tmp_path_factory.mktemp("blobs")
    body = bytearray(BODY)
    body[at] ^= 1 << bit
    (folder / NAME).write_bytes(body)
    with pytest.raises(TrustError, match="altered"):
        BlobStore(folder).open_verified(NAME)


@pytest.mark.parametrize("length", [len(BODY) - 1, len(BODY) + 1, 0])
def test_the_length_must_be_the_manifests(store: BlobStore, length: int) -> None:
    with pytest.raises(TrustError):
        store.open_verified(NAME, length)


def test_no_more_of_a_file_is_copied_than_the_manifest_allows(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that grew on the disk does not fill the memory of the board."""
    store.path(NAME).write_bytes(bytes(16 * blobs._CHUNK_BYTES))
    copied: list[int] = []
    monkeypatch.setattr(blobs, "_write_all", lambda _, data: copied.append(len(data)))
    with pytest.raises(TrustError):
        store.open_verified(NAME, 2 * blobs._CHUNK_BYTES)
    assert sum(copied) == 2 * blobs._CHUNK_BYTES


def test_a_change_on_disk_after_the_check_reaches_nobody(store: BlobStore) -> None:
    with store.open_verified(NAME) as blob:
        store.path(NAME).write_bytes(b"evil" * 1000)
        assert bytes(blob.view) == BODY
        assert Path(blob.path).read_bytes() == BODY


def test_the_sealed_copy_cannot_be_written_by_anybody(store: BlobStore) -> None:
    with store.open_verified(NAME) as blob:
        fd = os.open(blob.path, os.O_RDWR)
        try:
            with pytest.raises(OSError):
                os.pwrite(fd, b"x", 0)
            with pytest.raises(OSError):
                os.ftruncate(fd, 0)
        finally:
            os.close(fd)
        with pytest.raises(TypeError):
            blob.view[0] = 1


def test_descriptors_are_given_back_even_while_a_view_is_held(store: BlobStore) -> None:
    before = open_descriptors()
    blob = store.open_verified(NAME)
    held = memoryview(blob.view)
    with pytest.raises(BufferError):
        blob.close()
    assert held[0] == BODY[0], "who holds a view still reads the checked bytes"
    held.release()
    del held, blob
    assert open_descriptors() == before


def test_missing_too_large_or_misnamed(store: BlobStore) -> None:
    with pytest.raises(StorageError, match="No such file"):
        store.open_verified("0" * 64)
    with pytest.raises(TrustError, match="too large"):
        store.read_verified(NAME, len(BODY) - 1)
    assert store.read_verified(NAME, len(BODY)) == BODY, "the limit itself is allowed"
    for name in ("../../etc/passwd", NAME.upper(), NAME[:-1], ""):
        with pytest.raises(InputError):
            store.open_verified(name)
