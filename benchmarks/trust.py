"""What trust costs: processor time of checks on a board and of signatures on a server.

    python benchmarks/trust.py [--json] [--rounds 200] [--releases 50]

Time is the process's own (``time.process_time``), medians of single rounds, so that a busy machine
moves little. "Against" is the same work by the simpler way that the name in brackets says.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import httpx

#: Run by its path, only this folder is searched for modules.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tuf.ngclient import Updater

from benchmarks.common import Row, as_object, as_table
from kedge_agent.server_client import ServerClient
from kedge_agent.tuf_metadata import TrustedMetadata
from kedge_shared import signing, wire
from kedge_shared.machine import describe
from kedge_shared.protocol import ASSIGNMENT_LIMIT_BYTES, ASSIGNMENT_TYPE, Assignment, PollAnswer
from kedge_shared.trust import Seen, check_assignment
from tests.shared import samples
from tests.trust.repository import URL, MemoryRepository

POLL_TARGET_MS, SIGN_TARGET_MS = 5.0, 0.2


def cpu_ms(work: Callable[[], object], rounds: int) -> float:
    """Returns the median processor time of one round, milliseconds."""
    work()
    took = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        took.append(time.process_time() - began)
    return statistics.median(took) * 1000


def repository(releases: int) -> MemoryRepository:
    """Returns an image repository with one model's releases for three classes."""
    found = MemoryRepository()
    found.delegate("targets", "model-shapes", ["models/shapes/*/*/manifest.json"])
    for release in range(releases):
        for device_class in ("a", "b", "c"):
            path = f"models/shapes/{release}/{device_class}/manifest.json"
            found.add("model-shapes", path, path.encode())
    found.publish("model-shapes", "targets")
    return found


def poll_rows(rounds: int) -> list[Row]:
    """A poll with nothing new: what a board does with a 304, the request itself taken off."""
    headers = {"ETag": '"1"', "X-Kedge-Next-Poll": "60"}
    # As it comes from a network: not read yet.
    transport = httpx.MockTransport(
        lambda _: httpx.Response(304, headers=headers, stream=httpx.ByteStream(b""))
    )

    async def measure() -> tuple[float, float]:
        loop_rounds = max(rounds, 50)
        async with (
            ServerClient("http://127.0.0.1:1", transport) as client,
            httpx.AsyncClient(base_url="http://127.0.0.1:1", transport=transport) as plain,
        ):
            whole, bare = [], []
            for _ in range(loop_rounds):
                began = time.process_time()
                await client.poll('"1"', 1)
                whole.append(time.process_time() - began)
                began = time.process_time()
                await plain.get("/api/v1/device/poll")
                bare.append(time.process_time() - began)
        return statistics.median(whole) * 1000, statistics.median(bare) * 1000

    whole, bare = asyncio.run(measure())
    beyond = max(0.0, whole - bare)
    return [
        Row(name="poll with nothing new, beyond the request", value=beyond, unit="ms",
            target=POLL_TARGET_MS, holds=beyond <= POLL_TARGET_MS),
        Row(name="the same, request included [httpx alone]", value=whole, unit="ms", against=bare),
    ]  # fmt: skip


def assignment_rows(rounds: int) -> list[Row]:
    """Signing on the server, checking on the board."""
    signer = signing.generate()
    assignment = replace(samples.assignment(), issued=1, expires=2**31)
    envelope = signing.seal(assignment, ASSIGNMENT_TYPE, signer)
    key = signing.key_from_dict(signing.key_to_dict(signer.public_key))
    body = wire.encode(
        PollAnswer(assignment=envelope, timestamp_version=1, next_poll_seconds=60, nonce="n")
    )

    def check() -> None:
        answer = wire.decode(body, PollAnswer, "answer")
        assert answer.assignment is not None
        opened = signing.unseal(
            answer.assignment, ASSIGNMENT_TYPE, Assignment, key, limit_bytes=ASSIGNMENT_LIMIT_BYTES
        )
        check_assignment(opened, samples.pinned(), Seen(), 10)

    signed = cpu_ms(lambda: signing.seal(assignment, ASSIGNMENT_TYPE, signer), rounds)
    raw = cpu_ms(lambda: signer.sign(b"x" * 500), rounds)
    return [
        Row(name="assignment signed [Ed25519 alone]", value=signed, unit="ms",
            target=SIGN_TARGET_MS, holds=signed <= SIGN_TARGET_MS, against=raw),
        Row(name="assignment decoded, verified and checked", value=cpu_ms(check, rounds),
            unit="ms"),
    ]  # fmt: skip


def metadata_rows(rounds: int, releases: int) -> list[Row]:
    """The image repository, seen from a board that has seen it before."""
    source = repository(releases)
    path = f"models/shapes/{releases - 1}/c/manifest.json"
    with tempfile.TemporaryDirectory() as home:
        trusted = TrustedMetadata(Path(home) / "kedge", URL, source.pinned, source)
        plain = Path(home) / "plain"
        plain.mkdir()

        def theirs() -> None:
            updater = Updater(str(plain), URL, fetcher=source, bootstrap=source.pinned)
            updater.refresh()
            updater.get_targetinfo(path)

        def ours() -> None:
            trusted.refresh(datetime.now(timezone.utc))
            trusted.find(path)

        trusted.refresh(datetime.now(timezone.utc))
        value, against = cpu_ms(ours, rounds), cpu_ms(theirs, rounds)
        found = cpu_ms(lambda: trusted.find(path), rounds)
    count = f"{releases * 3} targets"
    return [
        Row(name=f"metadata refreshed, target found, {count} [python-tuf]", value=value,
            unit="ms", against=against),
        Row(name="one more look-up, verified from the pinned root", value=found, unit="ms"),
    ]  # fmt: skip


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--releases", type=int, default=50)
    options = parser.parse_args()
    rows = [
        *poll_rows(options.rounds),
        *assignment_rows(options.rounds),
        *metadata_rows(max(5, options.rounds // 10), options.releases),
    ]
    print(as_object(describe(), rows) if options.as_json else as_table(rows, "against"))


if __name__ == "__main__":
    main()
