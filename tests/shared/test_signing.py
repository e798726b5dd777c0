"""Envelopes: every altered bit is noticed, before anything is decoded."""

from __future__ import annotations

import base64
import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge_shared import signing, wire
from kedge_shared.errors import InputError, StorageError, TrustError
from kedge_shared.protocol import ASSIGNMENT_TYPE, REPORT_TYPE, Assignment
from tests.shared.samples import assignment

SIGNER = signing.generate()
KEY = SIGNER.public_key
SEALED = signing.seal(assignment(), ASSIGNMENT_TYPE, SIGNER)


def unseal(data: dict[str, Any], kind: str = ASSIGNMENT_TYPE, limit: int = 16_384) -> Assignment:
    return signing.unseal(data, kind, Assignment, KEY, limit_bytes=limit)


def code_of(data: dict[str, Any], **options: Any) -> str:
    with pytest.raises(TrustError) as caught:
        unseal(data, **options)
    return caught.value.code


def test_what_was_sealed_is_read_back() -> None:
    assert unseal(SEALED) == assignment()


@given(st.integers(min_value=0), st.integers(0, 7))
def test_one_flipped_bit_of_the_payload_is_refused(at: int, bit: int) -> None:
    payload = bytearray(base64.b64decode(SEALED["payload"]))
    payload[at % len(payload)] ^= 1 << bit
    forged = {**SEALED, "payload": base64.b64encode(payload).decode()}
    assert code_of(forged) == "signature"


def test_another_key_is_refused() -> None:
    assert code_of(signing.seal(assignment(), ASSIGNMENT_TYPE, signing.generate())) == "signature"


def test_another_key_under_the_right_key_id_is_refused() -> None:
    forged = signing.seal(assignment(), ASSIGNMENT_TYPE, signing.generate())
    forged["signatures"][0]["keyid"] = KEY.keyid
    assert code_of(forged) == "signature"


def test_an_unsigned_message_is_refused() -> None:
    assert code_of({**SEALED, "signatures": []}) == "signature"


def test_a_report_does_not_pass_for_an_assignment() -> None:
    assert code_of(signing.seal(assignment(), REPORT_TYPE, SIGNER)) == "type"
    # nor by renaming its type: the type is signed too
    renamed = {**signing.seal(assignment(), REPORT_TYPE, SIGNER), "payloadType": ASSIGNMENT_TYPE}
    assert code_of(renamed) == "signature"


def test_a_large_message_is_refused_before_its_signature() -> None:
    assert code_of(SEALED, limit=10) == "length"


def test_a_signed_message_that_is_no_assignment_is_refused() -> None:
    assert code_of(signing.seal({"device": 1}, ASSIGNMENT_TYPE, SIGNER)) == "payload"


@pytest.mark.parametrize("field", ["payload", "payloadType", "signatures"])
def test_a_message_without_a_field_is_refused(field: str) -> None:
    data = copy.deepcopy(SEALED)
    del data[field]
    assert code_of(data) == "envelope"


@given(
    st.dictionaries(st.text(), st.one_of(st.none(), st.text(), st.integers(), st.lists(st.text())))
)
def test_no_dictionary_gets_through_or_raises_something_else(data: dict[str, Any]) -> None:
    with pytest.raises(TrustError):
        unseal(data)


def test_public_keys_survive_the_wire() -> None:
    again = signing.key_from_dict(signing.key_to_dict(KEY))
    assert (
        signing.unseal(SEALED, ASSIGNMENT_TYPE, Assignment, again, limit_bytes=16_384)
        == assignment()
    )


def test_a_key_with_a_foreign_id_is_refused() -> None:
    data = {**signing.key_to_dict(KEY), "keyid": signing.generate().public_key.keyid}
    with pytest.raises(TrustError):
        signing.key_from_dict(data)


def test_private_keys_are_kept_from_others(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    signing.save_private_key(SIGNER, path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert signing.load_private_key(path).public_key == KEY
    with pytest.raises(StorageError, match="never overwritten"):
        signing.save_private_key(SIGNER, path)
    path.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        signing.load_private_key(path)


def test_encrypted_keys_want_their_passphrase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.key"
    monkeypatch.setenv(signing.PASSPHRASE_ENV, "open sesame")
    signing.save_private_key(SIGNER, path)
    assert b"ENCRYPTED" in path.read_bytes()
    assert signing.load_private_key(path).public_key == KEY
    for wrong in ("", "shut"):
        monkeypatch.setenv(signing.PASSPHRASE_ENV, wrong)
        with pytest.raises(InputError, match="passphrase"):
            signing.load_private_key(path)


def test_equal_values_are_equal_bytes() -> None:
    assert wire.encode({"b": 1, "a": 2}) == wire.encode({"a": 2, "b": 1})
