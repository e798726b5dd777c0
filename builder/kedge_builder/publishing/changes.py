"""``kedge keys rotate|add|revoke|delegate``: the server's metadata verified, changed, offered."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

from securesystemslib.signer import Key
from tuf.api.metadata import DelegatedRole, Metadata, Role

from kedge_builder.publishing.keyring import Keyring, read_public
from kedge_builder.publishing.keys import KeySet, write_public
from kedge_builder.publishing.repository import TrustedState
from kedge_builder.publishing.rotation import (
    Change,
    Standing,
    add_targets,
    change,
    delegate,
    lists,
    next_of,
    take_back,
)
from kedge_shared import signing, wire
from kedge_shared.client import Client
from kedge_shared.errors import InputError, TrustError
from kedge_shared.ids import check_name, sha256_hex
from kedge_shared.policy import POLICY_LIMIT_BYTES, ModelPolicy, policy_path, read_policy
from kedge_shared.trust import DIRECTOR_LIMIT_BYTES, DIRECTOR_PATH, DirectorKey, model_role

_ONLINE = ("snapshot", "timestamp")


@dataclass(frozen=True)
class RoleKeys:
    """Who signs a role.

    Attributes:
        role: Its name.
        version: Of its metadata; 0 for online roles, whose metadata is the server's.
        threshold: How many must sign.
        keys: Key id → whether it is at hand.
    """

    role: str
    version: int
    threshold: int
    keys: dict[str, bool]


class Desk:
    """A fleet's keys and its server. Use as a context manager.

    Args:
        folder: That ``kedge keys init`` wrote.
        server: Address.
        token_file: With the operator token.
    """

    def __init__(self, folder: Path, server: str, token_file: Path | None) -> None:
        self._places, self._open = KeySet.at(folder), ExitStack()
        self._ring = Keyring.load(self._places.offline)
        self._client = self._open.enter_context(Client.open(server, token_file))
        self._state = TrustedState(
            folder / "state", self._places.root, self._client.server, self._client.http
        )

    def __enter__(self) -> Desk:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def roles(self) -> list[RoleKeys]:
        """Returns who signs what."""
        standing = self._state.standing()
        return [self._role_keys(standing, each) for each in standing.roles]

    def full_id(self, role: str, start: str) -> str:
        """Returns the one key id of a role that begins so.

        Raises:
            InputError: There is none, or more than one.
        """
        keyids = self._state.standing().role(role).keyids
        found = [each for each in keyids if each.startswith(start)]
        if len(found) != 1 or not start:
            raise InputError(f"{len(found)} keys of {role} begin with {start!r}", "give more of it")
        return found[0]

    def change(
        self,
        role: str,
        add: Sequence[Key] = (),
        remove: Sequence[str] = (),
        threshold: int | None = None,
    ) -> Role | DelegatedRole:
        """Changes who signs a role; returns who does from now on."""
        what = Change(role, add, remove, threshold)
        self._client.publish_metadata(change(self._state.standing(), what, self._ring))
        return self._state.standing().role(role)

    def rotate(self, role: str) -> Path:
        """Replaces a role's keys by a fresh one; returns where it lies.

        A key that a refused attempt left behind is taken up again.
        """
        if role == "director":
            return self._rotate_director()
        keyids = self._state.standing().role(role).keyids
        folder = self._places.online if role in _ONLINE else self._places.offline
        path, key = self._fresh(folder, role, keyids)
        self.change(role, add=[key], remove=keyids, threshold=1)
        return path

    def delegate(self, model: str, public: Path | None) -> Path:
        """Gives a model to a team; returns the team's key."""
        role = model_role(check_name("model", model))
        if public is None:
            path, key = self._fresh(self._places.offline, role, [])
        else:
            path, key = public, read_public(public)
        self._client.publish_metadata(delegate(self._state.standing(), model, key, self._ring))
        return path

    def push(self) -> list[str]:
        """Offers what this publisher knows and the server has forgotten; returns its names."""
        found = self._state.beyond(self._client.repository())
        if found:
            self._client.publish_metadata(found)
        return sorted(found)

    def take_back(self, model: str, release: str, fallback: str | None = None) -> str | None:
        """Takes a release out of what is signed.

        Args:
            model: Model.
            release: Release.
            fallback: Where boards that run it shall move; signed into the policy with the rest.

        Returns:
            Where they do move, as the policy now says; ``None`` where it says nothing.

        Raises:
            InputError: It is not listed, or the fallback is none of the releases that stay.
        """
        check_name("model", model)
        check_name("release", release)
        standing = self._state.standing()
        known = self._policy(standing, model)
        to = fallback or (known.fallback if known else None)
        if to is not None and (to == release or not lists(standing, model, to)):
            raise InputError(f"{model} {to} cannot be fallen back to", "name another --fallback")
        policy: bytes | None = None
        if known is not None and to != known.fallback:
            policy = wire.encode_pretty(replace(known, version=known.version + 1, fallback=to))
        self._client.publish_metadata(self._without(standing, model, release, policy))
        return to

    def _without(
        self, standing: Standing, model: str, release: str, policy: bytes | None
    ) -> dict[str, bytes]:
        """Returns the metadata without a release, and with a new policy, whose bytes it uploads."""
        if policy is None:
            return take_back(standing, model, release, self._ring)
        with tempfile.TemporaryDirectory(prefix="kedge-yank-") as folder:
            path = Path(folder) / "policy.json"
            path.write_bytes(policy)
            signed = take_back(standing, model, release, self._ring, {policy_path(model): policy})
            self._client.upload(path, sha256_hex(policy), lambda _: None)
        return signed

    def _policy(self, standing: Standing, model: str) -> ModelPolicy | None:
        """Returns a model's policy as it is signed, ``None`` where there is none."""
        for metadata in (*standing.models.values(), standing.targets):
            listed = metadata.signed.targets.get(policy_path(model))
            if listed is not None:
                digest = listed.hashes["sha256"]
                body = self._client.read(f"/api/v1/artifacts/{digest}", POLICY_LIMIT_BYTES)
                if sha256_hex(body) != digest:
                    raise TrustError("hash", "the server sends another policy than is listed")
                return read_policy(body)
        return None

    def _rotate_director(self) -> Path:
        """The director is no role of TUF but a target, with an epoch that boards hold on to."""
        standing, place = self._state.standing(), self._places.repository / DIRECTOR_PATH
        data = wire.read_limited(place, "director's key", DIRECTOR_LIMIT_BYTES)
        listed = standing.targets.signed.targets.get(DIRECTOR_PATH)
        if listed is None or listed.hashes.get("sha256") != sha256_hex(data):
            raise InputError(f"{place} is not the one that targets list", "bring the newest one")
        current = wire.decode(data, DirectorKey, "director's key")
        path, key = self._fresh(self._places.online, "director", [str(current.key["keyid"])])
        following = DirectorKey(epoch=current.epoch + 1, key=signing.key_to_dict(key))
        scratch = place.with_suffix(".new")
        scratch.unlink(missing_ok=True)
        write_public(scratch, following)
        body = scratch.read_bytes()
        self._client.upload(scratch, sha256_hex(body), lambda _: None)
        targets = next_of(standing, "targets", datetime.now(timezone.utc))
        add_targets(targets, {DIRECTOR_PATH: body})
        self._ring.sign(targets, "targets", standing.role("targets"))
        self._client.publish_metadata({"targets": targets.to_bytes()})
        scratch.replace(place)
        return path

    def _fresh(self, folder: Path, role: str, named: Sequence[str]) -> tuple[Path, Key]:
        """Returns a key of a role that its delegator does not name yet, made if there is none."""
        for each in sorted(folder.glob(f"{role}-*.key")):
            key = signing.load_private_key(each).public_key
            if key.keyid not in named and each.name == _file_name(role, key):
                return each, key
        signer = signing.generate()
        path = folder / _file_name(role, signer.public_key)
        signing.save_private_key(signer, path)
        write_public(path.with_suffix(".key.pub"), signing.key_to_dict(signer.public_key))
        self._ring.add(signer)
        return path, signer.public_key

    def _role_keys(self, standing: Standing, name: str) -> RoleKeys:
        role = standing.role(name)
        known: dict[str, Metadata[Any]] = {
            "root": standing.root, "targets": standing.targets, **standing.models,
        }  # fmt: skip
        version = known[name].signed.version if name in known else 0
        return RoleKeys(
            name, version, role.threshold, {each: each in self._ring for each in role.keyids}
        )


def _file_name(role: str, key: Key) -> str:
    return f"{role}-{key.keyid[:8]}.key"
