"""The image repository: python-tuf's client from the pinned root, over our own HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import httpx
from tuf.api.exceptions import DownloadError, ExpiredMetadataError, RepositoryError
from tuf.api.metadata import TargetFile
from tuf.ngclient import Updater, UpdaterConfig

from kedge_agent.disk import write_whole
from kedge_agent.network import tls
from kedge_agent.server_client import TIMEOUT
from kedge_shared import wire
from kedge_shared.errors import ServiceError, StorageError, TrustError
from kedge_shared.ids import sha256_hex
from kedge_shared.trust import DIRECTOR_LIMIT_BYTES, DIRECTOR_PATH, DirectorKey
from kedge_shared.tuf_fetcher import HttpxFetcher

_ROOT_LIMIT_BYTES = 512_000


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


class ImageRepository:
    """Verified targets. Blocking: call from a thread.

    Args:
        server: Address.
        token: Device token.
        folder: Where trusted metadata is kept.
        root: The pinned ``1.root.json``.
        transport: Instead of the network, in tests.

    Raises:
        InputError: The pinned root cannot be read.
    """

    def __init__(
        self,
        server: str,
        token: str,
        folder: Path,
        root: Path,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._server, self._folder = server, folder
        self._root = wire.read_limited(root, "pinned root", _ROOT_LIMIT_BYTES)
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {token}"},
            timeout=TIMEOUT,
            transport=transport,
            verify=tls.context(),
        )
        self._updater: Updater | None = None

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
            TrustError: Unsigned, wrongly signed or going back (``metadata``), or ``expired``.
            ServiceError: The server does not answer.
            StorageError: The disk is full or cannot be written.
        """
        moment = datetime.fromtimestamp(now, timezone.utc)
        try:
            for name in ("metadata", "targets"):
                (self._folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
            # A fresh updater each time: it captures one moment, against which expiry is held.
            updater = Updater(
                metadata_dir=str(self._folder / "metadata"),
                metadata_base_url=f"{self._server}/tuf/metadata/",
                target_dir=str(self._folder / "targets"),
                target_base_url=f"{self._server}/tuf/targets/",
                fetcher=HttpxFetcher(self._http),
                config=UpdaterConfig(),
                bootstrap=self._root,
            )
            # python-tuf takes the clock's word; it has no other way to be told the time.
            trusted = updater._trusted_set
            trusted.reference_time = moment - timedelta(seconds=grace_seconds)
            updater.refresh()
            for role in (trusted.root, trusted.targets):
                if role.is_expired(moment):
                    raise ExpiredMetadataError(f"{role.type} expired {role.expires:%Y-%m-%d}")
        except ExpiredMetadataError as error:
            said = f"metadata is not to be trusted on {moment:%Y-%m-%d}: {error}"
            raise TrustError("expired", said, "check this board's clock") from None
        except RepositoryError as error:
            raise TrustError("metadata", f"metadata is not to be trusted: {error}") from None
        except DownloadError as error:
            raise ServiceError(f"server {self._server} does not answer: {error}") from None
        except OSError as error:
            raise StorageError(f"metadata cannot be written: {error}") from None
        self._updater = updater

    def proves(self, claimed: int) -> int:
        """Returns a time that the verified metadata proves to be past, Unix seconds.

        The timestamp's version is the Unix time at which it was signed, as the server has it. It
        is no proof beyond the expiry of root and targets: whoever holds the online keys must not
        be able to put a board's time beyond everything that the builders signed.

        Args:
            claimed: Another signed time, of an assignment.
        """
        if self._updater is None:
            raise RuntimeError("refresh() comes first")
        trusted = self._updater._trusted_set
        latest = min(trusted.root.expires, trusted.targets.expires).timestamp()
        claims = (claimed, trusted.timestamp.version)
        return max((each for each in claims if each < latest), default=0)

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
        if self._updater is None:
            raise RuntimeError("refresh() comes first")
        digest = info.hashes["sha256"]
        try:
            place = self._folder / "targets" / digest
            self._updater.download_target(info, filepath=str(place))
            data = place.read_bytes()
            if sha256_hex(data) != digest:
                raise TrustError("hash", f"{path} was altered")
            store.mkdir(parents=True, exist_ok=True)
            write_whole(store / digest, data)
            place.unlink()
            return data
        except RepositoryError as error:
            raise TrustError("hash", f"{path} is not what was signed: {error}") from None
        except DownloadError as error:
            raise ServiceError(f"server {self._server} does not answer: {error}") from None
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror}") from None

    def director(self, store: Path) -> DirectorKey:
        """Returns the key that may assign, an offline-signed target."""
        data = self.fetch(DIRECTOR_PATH, DIRECTOR_LIMIT_BYTES, store)
        return wire.decode(data, DirectorKey, "director's key")

    def _info(self, path: str) -> TargetFile:
        if self._updater is None:
            raise RuntimeError("refresh() comes first")
        info = self._updater.get_targetinfo(path)
        if info is None or "sha256" not in info.hashes:
            raise TrustError("unlisted", f"{path} is not among the signed targets")
        return info
