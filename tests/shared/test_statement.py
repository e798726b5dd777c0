"""in-toto statements: signed by whom, and of which kind."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kedge_shared import signing
from kedge_shared.attachments import PROVENANCE, listed_in
from kedge_shared.errors import InputError, TrustError
from kedge_shared.provenance import PROVENANCE_PREDICATE, peek_provenance
from kedge_shared.statement import (
    IN_TOTO_TYPE,
    STATEMENT_TYPE,
    Statement,
    subjects,
    unseal_statement,
)

SIGNER = signing.generate()
HASH = "a" * 64
SLSA = {
    "buildDefinition": {"buildType": "x", "externalParameters": {}, "resolvedDependencies": []},
    "runDetails": {"builder": {"id": "x", "version": {}}},
}


def said(**changes: str) -> Statement[Any]:
    made: Statement[Any] = Statement(
        subject=subjects([("manifest.json", HASH)]), predicate_type=PROVENANCE_PREDICATE,
        predicate=SLSA,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def opened(statement: Statement[Any]) -> Statement[dict[str, Any]]:
    envelope = signing.seal(statement, IN_TOTO_TYPE, SIGNER)
    return unseal_statement(
        envelope, IN_TOTO_TYPE, dict[str, Any], PROVENANCE_PREDICATE, SIGNER.public_key,
        limit_bytes=10_000,
    )  # fmt: skip


def test_the_fields_are_those_of_the_standard() -> None:
    body = msgspec.to_builtins(said())
    assert body["_type"] == "https://in-toto.io/Statement/v1"
    assert set(body) == {"_type", "subject", "predicateType", "predicate"}
    assert opened(said()).digests == {HASH}


@pytest.mark.parametrize(
    "changes",
    [{"predicate_type": "https://slsa.dev/provenance/v0.2"}, {"type": STATEMENT_TYPE + ".1"}],
)
def test_a_statement_of_another_kind_is_not_taken(changes: dict[str, str]) -> None:
    with pytest.raises(TrustError) as refused:
        opened(said(**changes))
    assert refused.value.code == "predicate"
    envelope = signing.seal(said(**changes), IN_TOTO_TYPE, SIGNER)
    with pytest.raises(TrustError):
        peek_provenance(envelope, HASH)


def test_provenance_of_another_build_is_not_taken() -> None:
    envelope = signing.seal(said(), IN_TOTO_TYPE, SIGNER)
    assert peek_provenance(envelope, HASH).predicate.run_details.builder.id == "x"
    with pytest.raises(TrustError, match="another build"):
        peek_provenance(envelope, "b" * 64)


def test_a_statement_about_nothing_is_none() -> None:
    with pytest.raises(TrustError):
        opened(msgspec.structs.replace(said(), subject=()))


@pytest.mark.parametrize(
    "custom", [{"provenance": []}, {"provenance": {"sha256": "A" * 64, "length": 1}},
               {"provenance": {"sha256": "a" * 64, "length": 2**40}}],
)  # fmt: skip
def test_custom_that_is_malformed_is_refused(custom: object) -> None:
    with pytest.raises(InputError):
        listed_in(custom, PROVENANCE)


@pytest.mark.parametrize("custom", [None, 5, "x", [], {}, {"theirs": 1}])
def test_custom_of_others_names_none(custom: object) -> None:
    assert listed_in(custom, PROVENANCE) is None
