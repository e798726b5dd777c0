"""What a correctly signed thing must still satisfy before it goes near a board."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kedge_shared.errors import TrustError
from kedge_shared.protocol import ManifestRef
from kedge_shared.trust import Seen, check_agreement, check_assignment, check_manifest
from tests.shared.samples import HASH, assignment, manifest, pinned, policy


def test_a_right_assignment_is_accepted() -> None:
    check_assignment(assignment(), pinned(), Seen(epoch=1, counter=5), now=1999)


@pytest.mark.parametrize(
    ("change", "seen", "now", "code"),
    [
        ({"device": "cam-2"}, Seen(), 1500, "device"),
        ({"device_key_id": "key-2"}, Seen(), 1500, "device"),
        ({"workload": "other"}, Seen(), 1500, "device"),
        ({}, Seen(epoch=2), 1500, "rollback"),
        ({}, Seen(epoch=1, counter=6), 1500, "rollback"),
        ({}, Seen(), 2000, "expired"),
        ({}, Seen(), 999999, "expired"),
        ({"manifest": None}, Seen(), 1500, "payload"),
        ({"manifest": None, "intent": "revert"}, Seen(), 1500, "payload"),
    ],
)
def test_a_wrong_assignment_is_refused(
    change: dict[str, Any], seen: Seen, now: int, code: str
) -> None:
    with pytest.raises(TrustError) as caught:
        check_assignment(replace(assignment(), **change), pinned(), seen, now)
    assert caught.value.code == code


def test_holding_needs_no_build() -> None:
    held = replace(assignment(), manifest=None, intent="hold")
    check_assignment(held, pinned(), Seen(), now=1500)


def test_a_newer_epoch_and_counter_are_accepted() -> None:
    newer = replace(assignment(), epoch=7, counter=6)
    check_assignment(newer, pinned(), Seen(epoch=1, counter=5), now=1500)


@pytest.mark.parametrize(("length", "sha256"), [(99, HASH), (100, "b" * 64)])
def test_both_repositories_must_agree(length: int, sha256: str) -> None:
    ref = ManifestRef(path="models/x", sha256=HASH, length=100)
    check_agreement(ref, 100, HASH)
    with pytest.raises(TrustError) as caught:
        check_agreement(ref, length, sha256)
    assert caught.value.code == "mix"


def test_a_right_manifest_is_accepted() -> None:
    check_manifest(manifest(), policy(), manifest().target_path, pinned())


@pytest.mark.parametrize(
    ("of_manifest", "of_policy", "of_pinned", "code"),
    [
        ({"release": "0.9"}, {}, {}, "mix"),
        ({}, {"model": "other"}, {}, "mix"),
        ({}, {}, {"device_class": "x86-openvino"}, "class"),
        ({}, {}, {"models": ("other",)}, "model"),
        ({}, {"min_release_counter": 11}, {}, "rollback"),
        ({}, {"allowed_runtimes": ("openvino",)}, {}, "runtime"),
        ({"verdict": "undecided"}, {}, {}, "undecided"),
    ],
)
def test_a_wrong_manifest_is_refused(
    of_manifest: dict[str, Any], of_policy: dict[str, Any], of_pinned: dict[str, Any], code: str
) -> None:
    with pytest.raises(TrustError) as caught:
        check_manifest(
            replace(manifest(), **of_manifest),
            replace(policy(), **of_policy),
            manifest().target_path,
            replace(pinned(), **of_pinned),
        )
    assert caught.value.code == code


def test_the_policy_may_take_what_the_builder_left_undecided() -> None:
    undecided = replace(manifest(), verdict="undecided")
    lenient = replace(policy(), publish_undecided=True)
    check_manifest(undecided, lenient, manifest().target_path, pinned())


def test_the_floor_itself_is_allowed() -> None:
    at_floor = replace(policy(), min_release_counter=10)
    check_manifest(manifest(), at_floor, manifest().target_path, pinned())
