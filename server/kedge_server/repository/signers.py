"""The server's keys: snapshot, timestamp, director. Root and targets stay with the builders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import CryptoSigner

from kedge_shared.errors import InputError
from kedge_shared.signing import load_private_key

_OFFLINE = ("root", "targets", "model-")


@dataclass(frozen=True)
class OnlineKeys:
    """What the server signs with.

    Attributes:
        signers: Online TUF role → every key there is for it; the newest root says which count.
        directors: The same for assignments; targets say which one counts.
    """

    signers: dict[str, tuple[CryptoSigner, ...]]
    directors: tuple[CryptoSigner, ...]


def load_keys(trust: Path) -> OnlineKeys:
    """Reads the online keys.

    Raises:
        InputError: A key is missing, or an offline key lies where the server could read it.
    """
    online = trust / "online"
    for each in sorted(online.glob("*.key")):
        if each.name.startswith(_OFFLINE):
            raise InputError(
                f"{each} is an offline key", "the server must not hold it: move it away"
            )
    return OnlineKeys(
        {role: _signers(online, role) for role in ("snapshot", "timestamp")},
        _signers(online, "director"),
    )


def _signers(online: Path, role: str) -> tuple[CryptoSigner, ...]:
    """Loads the first key of a role and those it was rotated to (``ROLE-xxxxxxxx.key``)."""
    paths = [online / f"{role}.key", *sorted(online.glob(f"{role}-*.key"))]
    # After a rotation the first one may be thrown away.
    kept = [each for each in paths if each.exists()] or paths[:1]
    return tuple(load_private_key(each) for each in kept)
