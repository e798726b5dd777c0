"""The server's keys: snapshot, timestamp, director. Root and targets stay with the builders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import CryptoSigner

from kedge_shared.errors import InputError
from kedge_shared.signing import load_private_key

_OFFLINE = ("root.key", "targets.key")


@dataclass(frozen=True)
class OnlineKeys:
    """What the server signs with.

    Attributes:
        snapshot: TUF role.
        timestamp: TUF role.
        director: Assignments.
    """

    snapshot: CryptoSigner
    timestamp: CryptoSigner
    director: CryptoSigner


def load_keys(trust: Path) -> OnlineKeys:
    """Reads the online keys.

    Raises:
        InputError: A key is missing, or an offline key lies where the server could read it.
    """
    online = trust / "online"
    for name in _OFFLINE:
        if (online / name).exists():
            raise InputError(
                f"{online / name} is an offline key", "the server must not hold it: move it away"
            )
    return OnlineKeys(
        *(
            load_private_key(online / f"{name}.key")
            for name in ("snapshot", "timestamp", "director")
        )
    )
