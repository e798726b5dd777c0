"""What an assignment is held against: the director that the builders signed, and what was seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from kedge_agent.intake import Intake
from kedge_agent.journal import Journal
from kedge_agent.state import State
from kedge_shared import signing
from kedge_shared.errors import TrustError
from kedge_shared.protocol import ASSIGNMENT_TYPE
from kedge_shared.trust import DirectorKey
from tests.agent.test_journal import report
from tests.shared import samples

DIRECTOR = signing.generate()


class Repository:
    """The builders' word, as far as it is about the director."""

    def __init__(self, epoch: int) -> None:
        self.epoch, self.asked = epoch, 0

    def refresh(self, *_: object) -> None:
        self.asked += 1

    def director(self) -> DirectorKey:
        return DirectorKey(epoch=self.epoch, key=signing.key_to_dict(DIRECTOR.public_key))

    def proves(self, moment: int) -> int:
        return moment


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    found = Journal(tmp_path)
    yield found
    found.close()


@pytest.fixture
def intake(journal: Journal) -> Intake:
    board: Any = SimpleNamespace(
        journal=journal, pinned=samples.pinned(), now=lambda: 1500, grace_seconds=0.0,
        reporter=SimpleNamespace(about=lambda _: report(1)), log=lambda _: None,
    )  # fmt: skip
    return Intake(board)


def accept(intake: Intake, repository: Repository, **changes: object) -> Any:
    told = replace(samples.assignment(), **changes)  # type: ignore[arg-type]
    envelope = signing.seal(told, ASSIGNMENT_TYPE, DIRECTOR)
    return anyio.run(intake.accept, envelope, repository)


def test_what_is_told_is_remembered_with_its_proof(intake: Intake, journal: Journal) -> None:
    begun = accept(intake, Repository(epoch=1))
    state = journal.state
    assert (begun.id, state.epoch, state.counter, state.newest_time) == ("de-1", 1, 5, 1000)
    assert state.accepted["signatures"]
    assert accept(intake, Repository(epoch=1)) is None, "the same is not begun again"


def test_an_epoch_before_the_one_that_the_builders_name_is_refused(
    intake: Intake, journal: Journal
) -> None:
    """Also by a board that has not seen the newer one yet, though the key is still the same."""
    journal.save(State(epoch=1, counter=4))
    with pytest.raises(TrustError) as refused:
        accept(intake, Repository(epoch=2), epoch=1)
    assert refused.value.code == "rollback"
    assert journal.state == State(epoch=1, counter=4)
    assert accept(intake, Repository(epoch=2), epoch=2) is not None


def test_a_director_of_an_older_epoch_than_was_seen_is_refused(
    intake: Intake, journal: Journal
) -> None:
    journal.save(State(epoch=3, counter=4))
    with pytest.raises(TrustError, match="director of epoch 2"):
        accept(intake, Repository(epoch=2), epoch=3)
    assert journal.state == State(epoch=3, counter=4)


def test_time_that_was_proven_does_not_go_back(intake: Intake, journal: Journal) -> None:
    journal.save(State(newest_time=1400))
    accept(intake, Repository(epoch=1))
    assert journal.state.newest_time == 1400


def test_the_builders_are_asked_once_for_a_key(intake: Intake) -> None:
    repository = Repository(epoch=1)
    accept(intake, repository)
    accept(intake, repository, counter=6, deployment="de-2")
    assert repository.asked == 1
