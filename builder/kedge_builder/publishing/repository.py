"""The publisher's view of the image repository: its own trusted state, and the next targets.

A server that was taken over could offer old or foreign metadata and have it re-signed. So what is
fetched goes through TUF's client workflow (specification, section 5) against a state that is kept
on the publisher's machine, and only what that accepts is the base of the next version.
"""

from __future__ import annotations

from pathlib import Path

import httpx
from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets
from tuf.ngclient import Updater

from kedge_builder.publishing.durable import lasting_copy
from kedge_builder.publishing.rotation import Standing, delegated
from kedge_shared import wire
from kedge_shared.api import RepositoryState
from kedge_shared.errors import ServiceError, StorageError, TrustError
from kedge_shared.trust import MODEL_ROLE_PREFIX
from kedge_shared.tuf_fetcher import HttpxFetcher

_ROOT_LIMIT_BYTES = 512_000


class TrustedState:
    """What this publisher has verified so far, and how more is verified.

    Args:
        folder: Kept between publications; made when missing.
        root: The pinned ``1.root.json``.
        server: Address of the server.
        http: Client that carries the operator token.
    """

    def __init__(self, folder: Path, root: Path, server: str, http: httpx.Client) -> None:
        self.folder = folder
        self._root = wire.read_limited(root, "pinned root", _ROOT_LIMIT_BYTES)
        self._server = server
        self._fetcher = HttpxFetcher(http)

    def standing(self) -> Standing:
        """Fetches and verifies the newest metadata of every role that is signed offline.

        Returns:
            It, base of what is signed next.

        Raises:
            TrustError: The server offers something that is not newer, signed and unexpired.
            ServiceError: The server does not answer.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with lasting_copy(self.folder) as scratch:
                updater = Updater(
                    metadata_dir=str(scratch),
                    metadata_base_url=f"{self._server}/tuf/metadata/",
                    fetcher=self._fetcher,
                    bootstrap=self._root,
                )
                updater.refresh()
                return _read(updater, scratch)
        except RepositoryError as error:
            raise TrustError(
                "repository",
                f"server {self._server} offers metadata that is not to be trusted: {error}",
                f"if the server was replaced on purpose, remove {self.folder}",
            ) from None
        except DownloadHTTPError as error:
            if error.status_code in {401, 403}:
                raise ServiceError(
                    f"server {self._server} does not take this token", "check KEDGE_TOKEN_FILE",
                    status=error.status_code,
                ) from None  # fmt: skip
            raise ServiceError(f"server {self._server} answers {error}") from None
        except DownloadError:
            raise ServiceError(
                f"server {self._server} does not answer",
                "check the address and that `kedge server run` is up",
            ) from None
        except OSError as error:
            raise StorageError(f"{self.folder} cannot be written: {error.strerror}") from None

    def beyond(self, server: RepositoryState) -> dict[str, bytes]:
        """Returns what this publisher has verified and a server restored from a backup lacks."""
        roots = (self.folder / "root_history").glob("*.root.json")
        found = {
            each.name.removesuffix(".json"): each.read_bytes() for each in roots
            if int(each.name.split(".")[0]) > server.root
        }  # fmt: skip
        held = {"targets": server.targets}
        held |= {each.stem: 0 for each in self.folder.glob(f"{MODEL_ROLE_PREFIX}*.json")}
        for role, version in (held | server.models).items():
            path = self.folder / f"{role}.json"
            if path.exists():
                body = path.read_bytes()
                if Metadata[Targets].from_bytes(body).signed.version > version:
                    found[role] = body
        return found


def _read(updater: Updater, folder: Path) -> Standing:
    root = Metadata[Root].from_file(str(folder / "root.json"))
    targets = Metadata[Targets].from_file(str(folder / "targets.json"))
    snapshot = Metadata[Snapshot].from_file(str(folder / "snapshot.json"))
    models: dict[str, Metadata[Targets]] = {}
    for role in delegated(targets):
        if f"{role}.json" in snapshot.signed.meta:
            # No such release can be: the look-up fetches and verifies the role and ends there.
            model = role.removeprefix(MODEL_ROLE_PREFIX)
            updater.get_targetinfo(f"models/{model}/-/-/manifest.json")
            models[role] = Metadata[Targets].from_file(str(folder / f"{role}.json"))
    return Standing(root, targets, models)
