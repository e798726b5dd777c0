"""The agent's TUF client as the command that the public tuf-conformance suite drives.

``python -m kedge_agent.tuf_conformance --metadata-dir DIR init|refresh|download …``, as in the
suite's CLIENT-CLI.md; exit status 0 or 1. docs/security.md says how to run it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote

import httpx
from tuf.api.exceptions import DownloadError, LengthOrHashMismatchError, RepositoryError

from kedge_agent.disk import write_whole
from kedge_agent.server_client import TIMEOUT
from kedge_agent.tuf_metadata import LIMITS, TrustedMetadata
from kedge_shared import wire
from kedge_shared.errors import KedgeError
from kedge_shared.tuf_fetcher import HttpxFetcher

_PINNED = "pinned-root"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "init":
            _init(options.metadata_dir, options.trusted_root)
        else:
            with httpx.Client(timeout=TIMEOUT) as http:
                metadata = _metadata(options, http)
                metadata.refresh(datetime.now(timezone.utc))
                for name in options.target_name if options.command == "download" else ():
                    _download(metadata, name, options.target_base_url, options.target_dir)
    except (KedgeError, RepositoryError, DownloadError, OSError) as error:
        print(f"tuf_conformance: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kedge_agent.tuf_conformance")
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url", default="")
    parser.add_argument("--target-name", action="append", default=[])
    parser.add_argument("--target-base-url", default="")
    parser.add_argument("--target-dir", type=Path)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("trusted_root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    return parser


def _init(folder: Path, root: Path) -> None:
    """Pins a root. A board's pinned root stands in its configuration, never among the metadata."""
    data = wire.read_limited(root, "root", LIMITS.root_max_length)
    write_whole(folder / _PINNED, data)
    write_whole(folder / "root.json", data)


def _metadata(options: argparse.Namespace, http: httpx.Client) -> TrustedMetadata:
    root = wire.read_limited(options.metadata_dir / _PINNED, "root", LIMITS.root_max_length)
    return TrustedMetadata(options.metadata_dir, options.metadata_url, root, HttpxFetcher(http))


def _download(metadata: TrustedMetadata, name: str, url: str, folder: Path) -> None:
    info = metadata.find(name)
    if info is None:
        raise RepositoryError(f"{name} is not among the signed targets")
    place = folder / quote(name, "")
    try:
        info.verify_length_and_hashes(place.read_bytes())
    except (OSError, LengthOrHashMismatchError):
        write_whole(place, metadata.download(info, url))


if __name__ == "__main__":
    sys.exit(main())
