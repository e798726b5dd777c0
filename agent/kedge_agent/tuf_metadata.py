"""What this board trusts of the image repository, kept so that no power cut takes it back.

python-tuf verifies; what it leaves to others stands here:

- It writes metadata without fsync. After a power cut a zeroed ``timestamp.json`` would be taken for
  none, and with it the protection against going back were gone. So it works on a copy, and what it
  accepted is written whole and synced before anybody relies on it.
- Up to 7.0.0 a role that was verified for one delegator was believed of every other one; in 7.0.1
  it is believed of the first one again after it was replaced by another's. So every look-up is
  verified from the pinned root along its own path, over one answer of the server.
- A root that this board trusted before binds it, also when the file is gone bad.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TypeVar

from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    ExpiredMetadataError,
    RepositoryError,
)
from tuf.api.metadata import Metadata, Root, TargetFile, Timestamp
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from kedge_agent.disk import REAL_DISK, write_whole
from kedge_shared.errors import TrustError

T = TypeVar("T")

#: Longest that is read of each, bytes, and how far chains may go (specification, section 5).
LIMITS = UpdaterConfig(
    max_root_rotations=256,
    max_delegations=32,
    root_max_length=512_000,
    timestamp_max_length=16_384,
    snapshot_max_length=2_000_000,
    targets_max_length=5_000_000,
)
_HISTORY = "root_history"
_WORK = "work"
#: Signed by the server; a grace stretches these alone.
_ONLINE = frozenset({"snapshot", "timestamp"})


class TrustedMetadata:
    """Verified metadata of one repository. Blocking; not for two threads at once.

    Args:
        folder: Where it is kept; made when missing.
        metadata_url: Base address of metadata.
        root: The pinned root.
        fetcher: To the network.
    """

    def __init__(
        self,
        folder: Path,
        metadata_url: str,
        root: bytes,
        fetcher: FetcherInterface,
    ) -> None:
        self._folder, self._root = folder, root
        self._metadata_url = metadata_url.rstrip("/") + "/"
        self._fetcher = fetcher
        self._moment = _Moment(fetcher, self._metadata_url)
        self._now = datetime.now(timezone.utc)
        self._grace = timedelta()

    def refresh(self, now: datetime, grace: timedelta = timedelta()) -> None:
        """Fetches and verifies the newest metadata (specification, section 5).

        Args:
            now: Time by which expiry is judged, until the next call.
            grace: How long after its expiry the online roles' metadata is still taken; that of
                root, targets and models' teams is not.

        Raises:
            RepositoryError: Something of it is not to be trusted.
            TrustError: The server withholds a root that was trusted before (``rollback``).
            DownloadError: The server does not answer.
            OSError: It cannot be written.
            StorageError: The same, when it is made to last.
        """
        self._moment = _Moment(self._fetcher, self._metadata_url)
        self._now, self._grace = now, grace
        self._visit(lambda _: None)

    def proven(self) -> tuple[int, float]:
        """Returns what the verified metadata says of the time, both in Unix seconds.

        Returns:
            The timestamp's version, and the first expiry of root and targets.
        """
        timestamp = Metadata[Timestamp].from_file(str(self._folder / "timestamp.json")).signed
        expires = [
            Metadata.from_file(str(self._folder / f"{role}.json")).signed.expires
            for role in ("root", "targets")
        ]
        return timestamp.version, min(expires).timestamp()

    def find(self, path: str) -> TargetFile | None:
        """Returns what is signed of a target, or ``None``; errors as :meth:`refresh`."""
        return self._visit(lambda updater: updater.get_targetinfo(path))

    def download(self, info: TargetFile, target_url: str) -> bytes:
        """Returns a target's bytes: of the length and hashes that were signed.

        Raises:
            RepositoryError: It is other bytes, or more of them.
            DownloadError: The server does not answer.
        """

        def work(updater: Updater) -> bytes:
            place = self._folder / _WORK / "target"
            return Path(updater.download_target(info, str(place), target_url)).read_bytes()

        return self._visit(work)

    def _visit(self, work: Callable[[Updater], T]) -> T:
        """Lets python-tuf work on a copy; makes last what it accepted, also if it then failed."""
        scratch = self._folder / _WORK
        shutil.rmtree(scratch, ignore_errors=True)
        (scratch / _HISTORY).mkdir(mode=0o700, parents=True)
        try:
            _copy(self._folder, scratch)
            updater = Updater(
                metadata_dir=str(scratch),
                metadata_base_url=self._metadata_url,
                fetcher=self._moment,
                config=LIMITS,
                bootstrap=self._root,
            )
            # python-tuf takes the clock's word; it has no other way to be told the time.
            updater._trusted_set.reference_time = self._now - self._grace
            try:
                updater.refresh()
                found = work(updater)
            except (RepositoryError, DownloadError):
                if not self._gone_back(scratch):
                    self._settle(scratch)
                raise
            if reached := self._gone_back(scratch):
                raise TrustError("rollback", f"server withholds roots after {reached}")
            self._settle(scratch)
            self._check_expiry(updater)
            return found
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _gone_back(self, scratch: Path) -> int:
        """Returns the root that was reached when a newer one was trusted before, else 0."""
        reached = Metadata[Root].from_file(str(scratch / "root.json")).signed.version
        return reached if any(_version(each) > reached for each in _roots(self._folder)) else 0

    def _check_expiry(self, updater: Updater) -> None:
        """Holds what people sign, as far as it was looked at, against the time itself."""
        for signed in updater._trusted_set:
            if signed.type not in _ONLINE and signed.is_expired(self._now):
                raise ExpiredMetadataError(f"{signed.type} expired {signed.expires:%Y-%m-%d}")

    def _settle(self, scratch: Path) -> None:
        """Writes what is new, roots first: whoever lacks the rest fetches it again."""
        history = self._folder / _HISTORY
        if not history.is_dir():
            history.mkdir(mode=0o700)
            REAL_DISK.sync_folder(self._folder)
        for each in _roots(scratch):
            _keep(each, history / each.name)
        for each in sorted(scratch.glob("*.json")):
            _keep(each, self._folder / each.name)


class _Moment(FetcherInterface):
    """One answer of the server a file, so that several verifications see the same repository."""

    def __init__(self, fetcher: FetcherInterface, metadata_url: str) -> None:
        self._fetcher, self._metadata_url = fetcher, metadata_url
        self._seen: dict[str, bytes | DownloadHTTPError] = {}

    def _fetch(self, url: str) -> Iterator[bytes]:
        known = self._seen.get(url)
        if isinstance(known, DownloadHTTPError):
            raise known
        if known is not None:
            yield known
            return
        if not url.startswith(self._metadata_url):
            yield from self._fetcher.fetch(url)
            return
        chunks = []
        try:
            for chunk in self._fetcher.fetch(url):
                chunks.append(chunk)
                yield chunk
        except DownloadHTTPError as error:
            self._seen[url] = error
            raise
        self._seen[url] = b"".join(chunks)


def _copy(trusted: Path, scratch: Path) -> None:
    """Copies what can be read; python-tuf fetches the rest again."""
    for each in [*_roots(trusted), *trusted.glob("[!.]*.json")]:
        with suppress(OSError):
            if not each.is_symlink():
                (scratch / each.relative_to(trusted)).write_bytes(each.read_bytes())


def _roots(folder: Path) -> list[Path]:
    found = (folder / _HISTORY).glob("*.root.json")
    return sorted((each for each in found if each.name.split(".")[0].isdigit()), key=_version)


def _version(root: Path) -> int:
    return int(root.name.split(".")[0])


def _keep(new: Path, path: Path) -> None:
    data = new.read_bytes()
    with suppress(OSError):
        if not path.is_symlink() and path.read_bytes() == data:
            return
    write_whole(path, data)
