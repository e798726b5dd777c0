"""The image repository: python-tuf's client from the pinned root, over our own HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import httpx
from tuf.api.exceptions import DownloadError, ExpiredMetadataError, RepositoryError
from tuf.api.metadata import TargetFile

from kedge_agent.blobs import BlobStore
from kedge_agent.disk import write_whole
from kedge_agent.network import tls
from kedge_agent.server_client import TIMEOUT
from kedge_agent.tuf_metadata import LIMITS, TrustedMetadata
from kedge_shared import wire
from kedge_shared.errors import InputError, ServiceError, StorageError, TrustError
from kedge_shared.ids import sha256_hex
from kedge_shared.trust import DIRECTOR_LIMIT_BYTES, DIRECTOR_PATH, DirectorKey
from kedge_shared.tuf_fetcher import HttpxFetcher


@dataclass(frozen=True)
class Target:
    """A target that the image repository lists.

    Attributes:
        path: Its path.
        sha256: Of its bytes.
        length: Bytes.
    """

    path: str
    sha256: str
    length: int


def _bearing(token: str | Callable[[], str]) -> Callable[[httpx.Request], httpx.Request]:
    def bear(request: httpx.Request) -> httpx.Request:
        bearer = token if isinstance(token, str) else token()
        request.headers["Authorization"] = f"Bearer {bearer}"
        return request

    return bear


class ImageRepository:
    """Verified targets. Blocking: call from a thread.

    Args:
        server: Address.
        token: Device token, or what tells the one that counts now.
        folder: Where trusted metadata is kept.
        root: The pinned ``1.root.json``.
        transport: Instead of the network, in tests.

    Raises:
        InputError: The pinned root cannot be read.
    """

    def __init__(
        self,
        server: str,
        token: str | Callable[[], str],
        folder: Path,
        root: Path,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._server, self._targets = server, folder / "targets"
        self._http = httpx.Client(
            auth=_bearing(token),
            timeout=TIMEOUT,
            transport=transport,
            verify=tls.context(),
        )
        self._metadata = TrustedMetadata(
            folder / "metadata",
            f"{server}/tuf/metadata/",
            wire.read_limited(root, "pinned root", LIMITS.root_max_length),
            HttpxFetcher(self._http),
        )
        self._fresh, self._now = False, datetime.now(timezone.utc)

    def close(self) -> None:
        """Closes the connection."""
        self._http.close()

    def refresh(self, now: float, grace_seconds: float = 0.0) -> None:
        """Fetches and verifies the newest metadata (specification, section 5).

        Args:
            now: Unix seconds by which expiry is judged (kedge_agent.clock).
            grace_seconds: How long after its expiry the online roles' metadata is still taken;
                the offline roles', root and targets, is not.

        Raises:
            TrustError: Unsigned, wrongly signed (``metadata``), going back (``rollback``), or
                ``expired``.
            ServiceError: The server does not answer.
            StorageError: The disk is full or cannot be written.
        """
        self._now = datetime.fromtimestamp(now, timezone.utc)
        with self._told("metadata", "metadata"):
            self._metadata.refresh(self._now, timedelta(seconds=grace_seconds))
        self._fresh = True

    def proves(self, claimed: int) -> int:
        """Returns a time that the verified metadata proves to be past, Unix seconds.

        The timestamp's version is the Unix time at which it was signed, as the server has it. It
        is no proof beyond the expiry of root and targets: whoever holds the online keys must not
        be able to put a board's time beyond everything that the builders signed.

        Args:
            claimed: Another signed time, of an assignment.
        """
        if not self._fresh:
            raise RuntimeError("refresh() comes first")
        version, latest = self._metadata.proven()
        return max((each for each in (claimed, version) if each < latest), default=0)

    def find(self, path: str) -> Target:
        """Returns a target that the verified metadata lists.

        Raises:
            TrustError: It is not listed (``unlisted``): the builders did not sign it, or took
                it back.
        """
        info = self._info(path)
        return Target(path, info.hashes["sha256"], info.length)

    def fetch(self, path: str, limit_bytes: int, store: Path) -> bytes:
        """Returns a target's bytes, verified, and keeps them among the blobs.

        What lies there whole is not fetched again.

        Args:
            path: Target path.
            limit_bytes: Longest that is accepted, whatever the metadata says.
            store: Blob folder.

        Raises:
            TrustError: Not listed, too long (``length``), or other bytes than listed (``hash``).
            ServiceError: The server does not answer.
        """
        info = self._info(path)
        if info.length > limit_bytes:
            raise TrustError("length", f"{path} is larger than {limit_bytes} bytes")
        digest = info.hashes["sha256"]
        kept = _kept(BlobStore(store), digest, info.length)
        if kept is not None:
            return kept
        with self._told("hash", path):
            data = self._metadata.download(info, f"{self._server}/tuf/targets/")
            if sha256_hex(data) != digest:
                raise TrustError("hash", f"{path} was altered")
            store.mkdir(parents=True, exist_ok=True)
            write_whole(store / digest, data)
        return data

    def director(self) -> DirectorKey:
        """Returns the key that may assign, an offline-signed target.

        It is of no build, so it is kept where nothing is swept.
        """
        data = self.fetch(DIRECTOR_PATH, DIRECTOR_LIMIT_BYTES, self._targets)
        return wire.decode(data, DirectorKey, "director's key")

    def _info(self, path: str) -> TargetFile:
        if not self._fresh:
            raise RuntimeError("refresh() comes first")
        with self._told("metadata", "metadata"):
            info = self._metadata.find(path)
        if info is None or "sha256" not in info.hashes:
            raise TrustError("unlisted", f"{path} is not among the signed targets")
        return info

    @contextmanager
    def _told(self, code: str, what: str) -> Iterator[None]:
        """Turns python-tuf's errors into those that a person reads."""
        try:
            yield
        except ExpiredMetadataError as error:
            said = f"{what} is not to be trusted on {self._now:%Y-%m-%d}: {error}"
            raise TrustError("expired", said, "check this board's clock") from None
        except RepositoryError as error:
            raise TrustError(code, f"{what} is not to be trusted: {error}") from None
        except DownloadError as error:
            raise ServiceError(f"server {self._server} does not answer: {error}") from None
        except OSError as error:
            raise StorageError(f"{what} cannot be written: {error.strerror or error}") from None


def _kept(store: BlobStore, digest: str, length: int) -> bytes | None:
    """Returns a target that this board has whole, or ``None``: then it is fetched (anew)."""
    try:
        with store.open_verified(digest, length) as blob:
            return bytes(blob.view)
    except (InputError, StorageError, TrustError):
        return None
