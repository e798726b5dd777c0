"""Any bytes at all are taken or refused with the named error, by every parser there is."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, feed

DEEP = 100_000
NASTY = {
    "deep lists": b"[" * DEEP, "deep objects": b'{"a":' * DEEP, "closed": b"[" * 900 + b"]" * 900,
    "huge integer": b'{"schema":' + b"9" * 5000 + b"}",
    "huge negative": b'{"schema":-' + b"9" * 400 + b"}",
    "huge exponent": b'{"schema":1e99999}', "nan": b'{"schema":NaN}',
    "infinity": b'{"a":-Infinity}',
    "same key twice": b'{"schema":1,"schema":2,"payload":"","payload":[]}',
    "lone surrogate": b'{"model":"\\ud800"}', "raw surrogate": b'{"model":"\xed\xa0\x80"}',
    "not utf-8": b'{"model":"\xff\xfe"}', "nul": b'{"model":"\\u0000"}', "bom": b"\xef\xbb\xbf{}",
    "empty": b"", "null": b"null", "true": b"true", "number": b"1e400", "text": b'"x"',
    "terminal": b'{"\x1b[2J":1}', "escaped terminal": b'{"schema":"\\u001b[2J"}',
    "payload of nothing": b'{"payload":"","payloadType":"","signatures":[]}',
    "payload of numbers": b'{"payload":1,"payloadType":2,"signatures":3}',
    "keys of objects": b'{"keyid":{},"keytype":[],"scheme":null,"keyval":{"public":1}}',
    "key not hexadecimal": b'{"keyid":"a","keytype":"ed25519","scheme":"ed25519",'
                           b'"keyval":{"public":"zz"}}',
    "signed of a list": b'{"signed":[],"signatures":{}}',
    "expires nonsense": b'{"signed":{"_type":"root","version":1,"spec_version":"9.9.9",'
                        b'"expires":"x","keys":{},"roles":{}},"signatures":[]}',
}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_what_each_takes_is_what_it_is_for(name: str) -> None:
    feed(name, TARGETS[name].good)


@pytest.mark.parametrize("name", ["manifest", "policy", "assignment", "report", "rollout"])
def test_nothing_nasty_is_taken(name: str) -> None:
    for what, data in NASTY.items():
        assert not feed(name, data), what


@pytest.mark.parametrize("name", TARGETS)
def test_nasty_documents_raise_nothing_else_and_take_no_memory(name: str) -> None:
    tracemalloc.start()
    try:
        for data in NASTY.values():
            feed(name, data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode())


@st.composite
def _changed(draw: st.DrawFn, good: bytes) -> bytes:
    """A good document with a stretch of it replaced: nearer to being taken than noise is."""
    at = draw(st.integers(0, len(good)))
    until = draw(st.integers(at, min(len(good), at + 60)))
    return good[:at] + draw(st.binary(max_size=12) | JSON) + good[until:]


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_are_taken_or_refused_by_name(name: str) -> None:
    @given(data=st.binary(max_size=300) | JSON | _changed(TARGETS[name].good))
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def fed(data: bytes) -> None:
        feed(name, data)

    fed()
