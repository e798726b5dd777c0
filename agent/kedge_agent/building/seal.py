"""Derived artifacts: made on this board from signed input, sealed with the board's own seal key.

Whoever can write to the disk cannot make one: without the seal nothing that was not signed by the
builders is loaded, and another board's key does not open it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from securesystemslib.signer import CryptoSigner

from kedge_shared import signing
from kedge_shared.errors import TrustError
from kedge_shared.ids import Count
from kedge_shared.plans import Plan

DERIVED_TYPE = "application/vnd.kedge.derived+json"
SEAL_LIMIT_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Derived:
    """A plan that this board built.

    Attributes:
        plan: It, with the hash of its signed source and the toolchain and flags that made it.
        length: Bytes.
    """

    plan: Plan
    length: Count


def sealed(derived: Derived, signer: CryptoSigner) -> bytes:
    """Returns a seal as it is stored.

    Args:
        derived: What was built.
        signer: This board's seal key.
    """
    return msgspec.json.encode(signing.seal(derived, DERIVED_TYPE, signer))


def opened(data: bytes, key: Mapping[str, Any], source: str) -> Derived:
    """Checks a seal.

    Args:
        data: As it was stored.
        key: This board's public key.
        source: Hash of the ONNX that the plan must have been made of.

    Raises:
        TrustError: It is none, another board's, or of another source.
    """
    try:
        envelope = msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.MsgspecError:
        raise TrustError("envelope", "the seal of the built plan is malformed") from None
    derived = signing.unseal(
        envelope, DERIVED_TYPE, Derived, signing.key_from_dict(dict(key)),
        limit_bytes=SEAL_LIMIT_BYTES,
    )  # fmt: skip
    if derived.plan.onnx != source:
        raise TrustError("mix", "the built plan was made of another model")
    return derived
