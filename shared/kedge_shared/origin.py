"""Whether signed provenance holds for a build, and whose signature says so. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import Key

from kedge_shared.errors import InputError, TrustError
from kedge_shared.ids import sha256_hex
from kedge_shared.provenance import Slsa, peek_provenance
from kedge_shared.statement import IN_TOTO_TYPE, Statement, read_envelope


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a build came from.

    Attributes:
        state: ``verified``: a key that was given signed it; ``signed``: somebody did, and no key
            was given to check that; ``unsigned``: not published from here; ``none``: the builder
            wrote no statement; ``bad``: it does not hold.
        reason: The sentence an operator reads.
        keys: Ids of the keys that signed: those that were checked, or those it names.
        statement: What it says; ``None`` if there is none that can be believed to be of the build.
    """

    state: Literal["verified", "signed", "unsigned", "none", "bad"]
    reason: str
    keys: tuple[str, ...] = ()
    statement: Statement[Slsa] | None = None


@dataclass(frozen=True)
class Known:
    """Whom to believe.

    Attributes:
        keys: Key id → public key of those that may sign a model's releases now.
        listed: Hashes of provenance that verified targets name: signed anew at every rotation, so
            they hold although the key that signed the statement itself is gone.
    """

    keys: Mapping[str, Key]
    listed: frozenset[str] = frozenset()


def judge(data: bytes, manifest_sha256: str, known: Known | None) -> Origin:
    """Checks signed provenance.

    Args:
        data: The envelope.
        manifest_sha256: Of the build.
        known: Whom to believe; ``None`` if nobody is known of.
    """
    try:
        body = read_envelope(data, "provenance")
        said = peek_provenance(body, manifest_sha256)
        envelope = Envelope.from_dict(dict(body))
    except (InputError, TrustError) as error:
        return Origin(state="bad", reason=str(error))
    named = tuple(sorted(envelope.signatures))
    if envelope.payload_type != IN_TOTO_TYPE:
        return Origin(state="bad", reason=f"it is a {envelope.payload_type!r}", keys=named)
    if known is None:
        reason = "no key was given to check it with"
        return Origin(state="signed", reason=reason, keys=named, statement=said)
    if sha256_hex(data) in known.listed:
        reason = "named by the signed targets"
        return Origin(state="verified", reason=reason, keys=named, statement=said)
    try:
        held = envelope.verify(list(known.keys.values()), 1)
    except (VerificationError, ValueError):
        reason = "none of the keys that may sign the model's releases has signed it"
        return Origin(state="bad", reason=reason, keys=named)
    return Origin(
        state="verified", reason="signed by a key that may sign the model's releases",
        keys=tuple(sorted(held)), statement=said,
    )  # fmt: skip
