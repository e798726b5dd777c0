"""Seeded mutations of everything that reaches a board, and parsers fed with anything at all.

What is refused must be refused with an error that a person can read; what is not refused must be
the very bytes that were signed (a hexadecimal signature in capitals is one).
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kedge_agent import disk, downloads
from kedge_agent.fetching import Unfit
from kedge_shared import signing, wire
from kedge_shared.errors import InputError, KedgeError, TrustError
from kedge_shared.ids import sha256_hex
from kedge_shared.manifest import Manifest, read_manifest
from kedge_shared.policy import ModelPolicy, read_policy
from kedge_shared.protocol import ASSIGNMENT_LIMIT_BYTES, ASSIGNMENT_TYPE, Assignment
from tests.shared import samples
from tests.trust.device import ENGINE, Device, Fleet
from tests.trust.repository import URL

SEEDS = range(25)
#: In each seed; 25 x (10 + 10 + 10 + 20) = 1,250 mutations.
ARTIFACTS, METADATA, MANIFESTS, ASSIGNMENTS = 10, 10, 10, 20


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Returns other bytes: a bit, a byte, a cut, a doubled or lost stretch, junk at the end."""
    while True:
        body = bytearray(data)
        at, until = sorted((rng.randrange(len(body)), rng.randrange(len(body))))
        match rng.randrange(7):
            case 0:
                body[at] ^= 1 << rng.randrange(8)
            case 1:
                body[at] = rng.randrange(256)
            case 2:
                del body[at:]
            case 3:
                del body[at:until]
            case 4:
                body[at:at] = body[at:until]
            case 5:
                body += rng.randbytes(rng.randrange(1, 40))
            case _:
                body[at:until] = bytes(until - at)
        if body != data:
            return bytes(body)


def twisted(value: Any, rng: random.Random) -> Any:
    """Returns a JSON value of which one leaf is another."""
    if isinstance(value, dict) and value:
        key = rng.choice(sorted(value))
        if rng.random() < 0.1:
            return {each: value[each] for each in value if each != key}
        return {**value, key: twisted(value[key], rng)}
    if isinstance(value, list) and value:
        at = rng.randrange(len(value))
        return [*value[:at], twisted(value[at], rng), *value[at + 1 :]]
    others = [None, True, -1, 0, 1, 2**63, 2**70, 0.5, "", "x", "../../x", "9" * 64, [], {}, [[]]]
    return rng.choice([each for each in others if each != value])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "backoff_seconds", lambda _: 0.0)
    monkeypatch.setattr(downloads, "_TRIES", 1)
    # Of no interest here, and a thousand times.
    monkeypatch.setattr(disk.os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
def honest(fleet: Fleet) -> Iterator[Fleet]:
    """The fleet; what a test did to its files is undone."""
    files, artifacts = dict(fleet.repository.files), dict(fleet.artifacts)
    yield fleet
    fleet.repository.files, fleet.artifacts = files, artifacts


def outcome(fleet: Fleet, folder: Path, envelope: dict[str, Any]) -> str:
    """Returns the engine that a fresh board would load, or ``""`` when it refuses."""
    try:
        return Device(fleet, folder).take(envelope).engine
    except (KedgeError, Unfit):
        return ""
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_mutated_artifact_is_stored(honest: Fleet, tmp_path: Path, seed: int) -> None:
    rng, envelope = random.Random(seed), honest.assign()
    device = Device(honest, tmp_path / "board")
    for _ in range(ARTIFACTS):
        honest.artifacts[sha256_hex(ENGINE)] = mutated(ENGINE, rng)
        with pytest.raises(KedgeError):
            device.take(envelope)
        assert not device.store.has(sha256_hex(ENGINE))


@pytest.mark.parametrize("seed", SEEDS)
def test_no_mutated_manifest_or_policy_is_taken(honest: Fleet, tmp_path: Path, seed: int) -> None:
    rng, envelope = random.Random(seed), honest.assign()
    signed = [url for url in honest.repository.files if not url.startswith(URL)]
    for _ in range(MANIFESTS):
        url = rng.choice(signed)
        good = honest.repository.files[url]
        honest.repository.files[url] = mutated(good, rng)
        # A board that holds the good ones already asks for none: a fresh one each time.
        assert outcome(honest, tmp_path / "board", envelope) == ""
        honest.repository.files[url] = good


@pytest.mark.parametrize("seed", SEEDS)
def test_mutated_metadata_brings_nothing_else(honest: Fleet, tmp_path: Path, seed: int) -> None:
    rng, envelope = random.Random(seed), honest.assign()
    names = [url for url in honest.repository.files if url.startswith(URL)]
    for _ in range(METADATA):
        url = rng.choice(names)
        good = honest.repository.files[url]
        if rng.random() < 0.5:
            honest.repository.files[url] = json.dumps(twisted(json.loads(good), rng)).encode()
        else:
            honest.repository.files[url] = mutated(good, rng)
        assert outcome(honest, tmp_path / "board", envelope) in {"", sha256_hex(ENGINE)}
        honest.repository.files[url] = good


@pytest.mark.parametrize("seed", SEEDS)
def test_mutated_assignments_say_nothing_else(fleet: Fleet, seed: int) -> None:
    rng, envelope = random.Random(seed), fleet.assign()
    key = fleet.director.public_key

    def opened(data: dict[str, Any]) -> Assignment:
        return signing.unseal(
            data, ASSIGNMENT_TYPE, Assignment, key, limit_bytes=ASSIGNMENT_LIMIT_BYTES
        )

    genuine, refused = opened(envelope), 0
    for _ in range(ASSIGNMENTS):
        bad = twisted(envelope, rng)
        if rng.random() < 0.5:
            text = mutated(json.dumps(envelope).encode(), rng).decode(errors="replace")
            try:
                bad = json.loads(text)
            except ValueError:
                refused += 1
                continue
        try:
            assert opened(bad) == genuine
        except TrustError:
            refused += 1
    assert refused > ASSIGNMENTS // 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner),
    max_leaves=20,
)
GOOD: dict[Callable[[bytes], object], Manifest | ModelPolicy] = {
    read_manifest: samples.manifest(), read_policy: samples.policy(),
}  # fmt: skip


@pytest.mark.parametrize("read", list(GOOD), ids=["manifest", "policy"])
@given(data=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=150, deadline=None)
def test_parsers_take_anything_without_falling_over(
    read: Callable[[bytes], object], data: bytes
) -> None:
    with pytest.raises(InputError):
        read(data)


@pytest.mark.parametrize("read", list(GOOD), ids=["manifest", "policy"])
@given(seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_nearly_right_documents_are_read_or_refused(
    read: Callable[[bytes], object], seed: int
) -> None:
    good = json.loads(wire.encode(GOOD[read]))
    bad = json.dumps(twisted(good, random.Random(seed))).encode()
    try:
        found = read(bad)
    except InputError:
        return
    assert type(found) is type(GOOD[read])
    assert read(wire.encode(found)) == found, "what was read is written and read the same"


@given(data=JSON.filter(lambda value: isinstance(value, dict)))
@settings(max_examples=150, deadline=None)
def test_envelopes_of_anything_are_refused(data: dict[str, Any]) -> None:
    key = signing.generate().public_key
    with pytest.raises(TrustError):
        signing.unseal(data, ASSIGNMENT_TYPE, Assignment, key, limit_bytes=ASSIGNMENT_LIMIT_BYTES)


@pytest.mark.parametrize("deep", ["[" * 100_000, '{"a":' * 100_000])
def test_deep_documents_are_refused(deep: str) -> None:
    for read in GOOD:
        with pytest.raises(InputError):
            read(deep.encode())
