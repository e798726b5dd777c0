"""The database sorts out the boards of a selector as the selector's own rule does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import ColumnElement, not_
from sqlmodel import Session, col, delete, select

from kedge_server.accounts.principal import WHOLE_FLEET, Reach
from kedge_server.devices import sieve
from kedge_server.devices.facts import facts_of_device
from kedge_server.devices.selectors import matches, parse
from kedge_server.devices.tables import DeviceRow
from kedge_shared import wire
from kedge_shared.protocol import DeviceFacts
from tests.server.both import database  # noqa: F401
from tests.sim.world import World


def facts(arch: str, memory_mb: float, **more: Any) -> DeviceFacts:
    return DeviceFacts(arch=arch, memory_mb=memory_mb, **{"runtimes": {}, **more})


#: Name → tags, facts, release: each like another in all but one thing.
BOARDS: dict[str, tuple[dict[str, str], DeviceFacts, str]] = {
    "cam-1": ({"site": "a", "rack": "9"}, facts("x86_64", 4096, runtimes={"ort": "1.9"}), ""),
    "cam-2": ({"site": "A"}, facts("x86_64", 4096.5, runtimes={"ort": "1.31"}), "1.0"),
    "Cam-3": ({"site": "a%", "rack": "10"}, facts("aarch64", 8192, sm=87), "1.10"),
    "cam_4": ({"site": ""}, facts("aarch64", 8192, cpu_flags=("vnni", "avx2")), "1.1"),
    "gate?5": ({"größe.x-1": 'a "b"', "rack": "no"}, facts("x86_64", 1, agent="2.0"), "*"),
    "gate[6": ({}, facts("x86_64", 1, cpu_flags=("avx2",)), "1.1"),
}  # fmt: skip

SELECTORS = (
    "name==cam-1", "name==cam*", "name==CAM*", "name!=cam-1", "name!=*_4", "name=in=(cam-1,cam-2)",
    "name=in=(cam-1,gate*)", "name=out=(cam-1,Cam-3)", 'name=="gate?5"', 'name=="gate?*"',
    'name=="gate[*"', "class==x86-*", "class==other", "release==1.1", 'release==""', "release<1.10",
    "release>=1.1", "release!=1.1", "release==*", "tag.site==a", "tag.site!=a", 'tag.site==""',
    "tag.site==a*", 'tag.site=="a%"', "tag.site=in=(a,A)", "tag.site=out=(a,A)", "tag.site==*",
    "tag.rack<10", "tag.rack>=9", "tag.none==x", "tag.none!=x", 'tag.größe.x-1=="a \\"b\\""',
    "tag.größe.x-1!=b", "memory_mb>=4096", "memory_mb==4096.5", "memory_mb!=1", "sm==87", "sm!=87",
    "sm<90", "cpu_flags==avx2", "cpu_flags!=vnni", "cpu_flags=in=(vnni,neon)", "arch==aarch64",
    "runtime.ort<1.30", "runtime.ort!=1.9", "runtime.none==1", "agent==2.*",
    "tag.site==a;memory_mb>4000", "tag.site!=a;(sm==87,cpu_flags==avx2)", "name==x,arch==x86_64",
)  # fmt: skip


@pytest.fixture
def boards(running: World) -> Iterator[Session]:
    with Session(running.context.engine) as session:
        for name, (tags, said, release) in BOARDS.items():
            session.add(DeviceRow(
                id=name, device_class="x86-" + name[:3], key_id=name, public_key="", enrolled=1,
                tags=json.dumps(tags), facts=wire.encode(said).decode(), release=release,
            ))  # fmt: skip
        session.flush()
        yield session


def sorted_out(session: Session, condition: ColumnElement[bool]) -> set[str]:
    return set(session.exec(select(DeviceRow.id).where(condition)))


def test_it_is_the_rule_of_selectors(boards: Session) -> None:
    every = {each.id: facts_of_device(each) for each in boards.exec(select(DeviceRow))}
    wrong = []
    for text in SELECTORS:
        selector = parse(text)
        wanted = {name for name, has in every.items() if matches(selector, has)}
        found = sorted_out(boards, sieve.condition(boards, selector))
        others = sorted_out(boards, not_(sieve.condition(boards, selector)))
        if found != wanted or others != every.keys() - wanted:
            wrong.append((text, found, others, wanted))
    assert wrong == []


def test_who_is_confined_twice_sees_what_both_allow(boards: Session) -> None:
    scopes = Reach.of("tag.site=in=(a,A)", "", "memory_mb<=4096")
    assert sorted_out(boards, sieve.within(boards, scopes)) == {"cam-1"}
    assert sorted_out(boards, sieve.within(boards, WHOLE_FLEET)) == BOARDS.keys()


def test_what_is_new_since_it_was_asked_is_not_within(boards: Session) -> None:
    for text in ("tag.site!=a", "name!=cam-1", "runtime.none!=1"):
        condition = sieve.condition(boards, parse(text))
        boards.add(DeviceRow(
            id="new", device_class="x", key_id="new", public_key="", enrolled=1,
            tags='{"site": "new"}', facts=wire.encode(facts("riscv64", 7)).decode(),
        ))  # fmt: skip
        boards.flush()
        assert "new" not in sorted_out(boards, condition)
        assert "new" in sorted_out(boards, sieve.condition(boards, parse(text)))
        boards.execute(delete(DeviceRow).where(col(DeviceRow.id) == "new"))
