"""Manifests and policies: what cannot be read is said in one line."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge_shared import wire
from kedge_shared.device_classes import catalogue, find_class
from kedge_shared.errors import InputError
from kedge_shared.manifest import MANIFEST_LIMIT_BYTES, Golden, read_manifest
from kedge_shared.policy import read_policy
from kedge_shared.resolver import resolve
from kedge_shared.versions import in_range
from tests.shared.samples import HASH, facts, manifest, policy


def test_round_trip() -> None:
    assert read_manifest(wire.encode(manifest())) == manifest()
    assert read_policy(wire.encode(policy())) == policy()


def test_a_newer_field_does_not_stop_an_older_agent() -> None:
    body = json.loads(wire.encode(manifest())) | {"from_the_future": 1}
    assert read_manifest(json.dumps(body).encode()) == manifest()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), 2),
        (("model",), "../etc"),
        (("release",), "A b"),
        (("files", 0, "sha256"), "xyz"),
        (("files", 0, "length"), -1),
        (("files", 0, "length"), 2**60),
        (("files", 0, "name"), "../../etc/passwd"),
        (("files", 0, "role"), "script"),
        (("input", "height"), 10**9),
        (("output", "classes"), []),
        (("output", "head"), "unknown"),
        (("golden", "references"), "d" * 64),
        (("files", 1, "role"), "engine"),
    ],
)
def test_a_wrong_field_is_refused_in_one_line(path: tuple[Any, ...], value: Any) -> None:
    body = json.loads(wire.encode(manifest()))
    place = body
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(InputError) as caught:
        read_manifest(json.dumps(body).encode())
    assert "\n" not in str(caught.value)


def test_a_manifest_without_references_is_refused() -> None:
    other = replace(manifest(), golden=Golden(references="e" * 64))
    with pytest.raises(InputError, match="golden references"):
        read_manifest(wire.encode(other))


@given(st.binary(max_size=200))
def test_no_bytes_raise_something_else(data: bytes) -> None:
    for read in (read_manifest, read_policy):
        with pytest.raises(InputError):
            read(data)


def test_deep_nesting_and_size_are_refused() -> None:
    with pytest.raises(InputError):
        read_manifest(b"[" * 100_000)
    with pytest.raises(InputError, match="larger than"):
        read_manifest(b" " * (MANIFEST_LIMIT_BYTES + 1))


@pytest.mark.parametrize(
    ("of_facts", "fits", "why"),
    [
        ({}, True, "satisfies"),
        ({"runtimes": {}}, False, "is not on the board"),
        ({"runtimes": {"openvino": "2026.1"}}, False, "is not on the board"),
        ({"runtimes": {"onnxruntime": "1.19.2"}}, False, "outside"),
        ({"runtimes": {"onnxruntime": "2.0.0"}}, False, "outside"),
        ({"runtimes": {"onnxruntime": "nightly"}}, False, "outside"),
        ({"arch": "aarch64"}, False, "board is aarch64"),
        ({"cpu_flags": ()}, False, "lacks avx2"),
    ],
)
def test_fit(of_facts: dict[str, Any], fits: bool, why: str) -> None:
    answer = resolve(manifest(), replace(facts(), **of_facts))
    assert answer.fits is fits
    assert why in answer.reason


def test_memory_and_sm_are_required_where_named() -> None:
    big = replace(manifest(), requires=replace(manifest().requires, memory_mb=8192))
    assert not resolve(big, facts()).fits
    plan = replace(manifest(), requires=replace(manifest().requires, sm=87))
    assert not resolve(plan, facts()).fits
    assert not resolve(plan, replace(facts(), sm=86)).fits
    assert resolve(plan, replace(facts(), sm=87)).fits


@pytest.mark.parametrize(
    ("version", "bounds", "holds"),
    [
        ("1.20", ">=1.20,<2", True),
        ("1.20.0", ">=1.20,<2", True),
        ("1.9", ">=1.20", False),
        ("2026.4.1-22-releases/2026", ">=2025.0,<2028", True),
        ("10.3.0", "==10.3", True),
        ("10.3.1", "==10.3", False),
        ("10.3", "!=10.3", False),
        ("10.3", ">10.3", False),
        ("10.3", "<=10.3", True),
        ("0", ">=0", True),
        ("1.0", "latest", False),
        ("1.0", "", False),
        ("", ">=0", False),
    ],
)
def test_version_bounds(version: str, bounds: str, holds: bool) -> None:
    assert in_range(version, bounds) is holds


def test_the_catalogue_is_readable_and_names_itself() -> None:
    found = catalogue()
    assert {"x86-onnxruntime", "x86-openvino"} <= set(found)
    assert all(name == each.name for name, each in found.items())
    assert find_class("x86-openvino").runtime.name == "openvino"


def test_an_unknown_class_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="x86-onnxruntime"):
        find_class("jetson-9000")
    assert manifest().engine_hash == HASH
