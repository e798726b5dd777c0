"""How the board stays let in: it signs a nonce for each access token, and can change its key.

No step looks at the board's clock. A change of key is written ahead: the new key lies beside the
old one until the server has taken it, and after a crash in between the board asks which one counts.
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path

import httpx
from securesystemslib.signer import CryptoSigner

from kedge_agent import identity
from kedge_agent.disk import settle
from kedge_agent.identity import Identity
from kedge_agent.server_client import ServerClient
from kedge_shared import signing
from kedge_shared.access import ACCESS_TYPE, KEY_CHANGE_TYPE, AccessRequest, AccessToken, KeyChange
from kedge_shared.errors import ServiceError
from kedge_shared.protocol import Enrolled

#: Share of a token's life after which the next one is fetched.
_RENEW_AT = 0.5


class Access:
    """Fetches access tokens for one program of a board.

    Args:
        signer: The board's key.
        device: Its name.
        program: Which of its programs.
    """

    def __init__(self, signer: CryptoSigner, device: str, program: str) -> None:
        self._signer, self._device, self._program = signer, device, program
        self._run = secrets.token_hex(8)
        self._renew_at = 0.0

    def due(self) -> bool:
        """Says whether it is time for another token."""
        return time.monotonic() >= self._renew_at

    async def renew(self, server: ServerClient) -> str:
        """Returns a fresh token.

        Raises:
            ServiceError: The server is down, or refuses this board.
        """
        token = await self._ask(server, self._signer)
        self._renew_at = time.monotonic() + token.seconds * _RENEW_AT
        return token.token

    async def _ask(self, server: ServerClient, signer: CryptoSigner) -> AccessToken:
        asked = AccessRequest(
            device=self._device, nonce=await server.nonce(), run=self._run, program=self._program
        )
        return await server.access(signing.seal(asked, ACCESS_TYPE, signer))


def let_in(me: Identity, server: ServerClient, program: str) -> None:
    """Has a connection bear what an enrolled board has: a lasting token, or fresh ones."""
    if me.token:
        server.authorise(me.token)
    else:
        server.keep_access(Access(me.signer, me.device, program))


def wants_key_change(folder: Path) -> bool:
    """Says whether another key was made for this board (``kedge agent new-key``)."""
    return next_key(folder).exists()


def next_key(folder: Path) -> Path:
    """Returns where the key lies that shall take the place of the board's."""
    return folder / "device.key.next"


async def change_key(folder: Path, device: str, server: ServerClient) -> None:
    """Has the server take the new key, and makes it the board's.

    Raises:
        ServiceError: The server is down or refuses; nothing has changed.
    """
    old = signing.load_private_key(folder / "device.key")
    new = signing.load_private_key(next_key(folder))
    if not await _counts(server, device, new):
        asked = KeyChange(
            device=device, nonce=await server.nonce(),
            public_key=signing.key_to_dict(new.public_key),
        )  # fmt: skip
        await server.change_key(signing.seal_by(asked, KEY_CHANGE_TYPE, [old, new]))
    # A lasting token was given for the old key.
    identity.keep(folder, Enrolled(device=device, token=""))
    settle(next_key(folder), folder / "device.key")


async def _counts(server: ServerClient, device: str, signer: CryptoSigner) -> bool:
    """Says whether the server has taken a key already: a crash came between that and our rename."""
    try:
        await Access(signer, device, "key-change").renew(server)
    except ServiceError as error:
        if error.status == httpx.codes.UNAUTHORIZED:
            return False
        raise
    return True
