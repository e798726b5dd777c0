"""What an action does to how many boards: what its confirmation names."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlmodel import Session, col

from kedge_server.console.words import boards
from kedge_server.rollouts import knowledge
from kedge_server.rollouts.facts import Standing, standing
from kedge_server.rollouts.tables import DEPLOYMENTS, DeploymentRow, RolloutRow
from kedge_shared.api import RolloutInfo
from kedge_shared.phases import BACK

_BACK = frozenset(each.value for each in BACK)


@dataclass(frozen=True)
class Boards:
    """The boards of a rollout.

    Attributes:
        have: Have the release and proved healthy with it.
        at_work: Were told of it and are not done.
        back: Refused it, or went back by themselves.
        unreached: Were not told of it.
        stuck: Of those that have it or are at work: without an older release to go back to.
    """

    have: int
    at_work: int
    back: int
    unreached: int
    stuck: int


@dataclass(frozen=True)
class Action:
    """Something that can be done with a rollout.

    Attributes:
        name: Of its route.
        title: Of its button.
        question: Heading of the confirmation.
        effects: What happens, sentence by sentence.
        button: What the button that does it says.
        harsh: It takes something away.
    """

    name: str
    title: str
    question: str
    effects: tuple[str, ...]
    button: str
    harsh: bool = False


def count(session: Session, rollout: RolloutRow) -> Boards:
    """Counts the boards of a rollout by what an action would do to them."""
    reached = col(DeploymentRow.assigned).is_not(None)
    query = (
        select(reached, col(DeploymentRow.phase), func.count())
        .where(col(DeploymentRow.rollout) == rollout.id, col(DeploymentRow.retried_by).is_(None))
        .group_by(reached, col(DeploymentRow.phase))
    )
    have = at_work = back = unreached = 0
    for was_reached, phase, boards_ in session.execute(query):
        if not was_reached:
            unreached += boards_
        elif phase == "confirmed":
            have += boards_
        elif phase in _BACK:
            back += boards_
        else:
            at_work += boards_
    return Boards(have, at_work, back, unreached, _stuck(session, rollout))


def _stuck(session: Session, rollout: RolloutRow) -> int:
    """Counts boards that have the release, or are getting it, and no older one that stands."""
    older = DEPLOYMENTS.alias()
    stands = (
        select(older.c.id)
        .join(RolloutRow, col(RolloutRow.id) == older.c.rollout)
        .where(older.c.device == col(DeploymentRow.device), older.c.assigned.is_not(None))
        .where(older.c.rollout != rollout.id, col(RolloutRow.state) != "halted")
        .where(col(RolloutRow.order) < rollout.order)
    )
    query = select(func.count()).where(
        col(DeploymentRow.rollout) == rollout.id, col(DeploymentRow.assigned).is_not(None),
        col(DeploymentRow.retried_by).is_(None), col(DeploymentRow.phase).not_in(_BACK),
        ~stands.exists(),
    )  # fmt: skip
    return int(session.execute(query).scalar_one())


def halt(found: Boards) -> Action:
    """Abort; boards go back."""
    goes = found.have + found.at_work - found.stuck
    effects = [f"{boards(goes)} {_s(goes, 'goes', 'go')} back to the release before."]
    if found.stuck:
        effects.append(f"{boards(found.stuck)} {_s(found.stuck, 'has', 'have')} no release before: "
                       "it stays on this one, and is given nothing new.")  # fmt: skip
    if found.back:
        effects.append(f"{boards(found.back)} already refused it or went back.")
    return Action(
        "halt", "Abort: revert", "Abort and send the boards back?",
        (*effects, _untouched(found), "It cannot be taken up again."),
        f"Abort: {boards(goes)} {_s(goes, 'reverts', 'revert')}", harsh=True,
    )  # fmt: skip


def stop(found: Boards) -> Action:
    """Abort; boards keep what they have."""
    effects = [f"{boards(found.have)} {_s(found.have, 'keeps', 'keep')} the release."]
    if found.at_work:
        effects.append(f"{boards(found.at_work)} {_s(found.at_work, 'was', 'were')} told of it and "
                       "may still take it, after their own trial.")  # fmt: skip
    keeps = found.have + found.at_work
    return Action(
        "stop", "Abort: keep", "Abort and leave the boards as they are?",
        (*effects, _untouched(found), "Should a board go back later, the rollout is halted."),
        f"Abort: {boards(keeps)} {_s(keeps, 'keeps', 'keep')} it", harsh=True,
    )  # fmt: skip


def pause(found: Boards) -> Action:
    """No further board gets it."""
    return Action(
        "pause", "Pause", "Pause this rollout?",
        (f"{boards(found.at_work)} at work on it {_s(found.at_work, 'goes', 'go')} on.",
         _untouched(found), "Gates still halt it where harm is proven."), "Pause",
    )  # fmt: skip


def resume(found: Boards) -> Action:
    """From where it was paused."""
    return Action(
        "resume", "Resume", "Let this rollout go on?",
        (f"Up to {boards(found.unreached)} more get the release, stage by stage.",), "Resume",
    )  # fmt: skip


def approve(info: RolloutInfo, found: Boards) -> Action:
    """A person's yes."""
    asking = next((each for each in info.stages if each.state == "asking"), None)
    if asking is None:
        first = info.stages[0]
        return Action(
            "approve", "Approve the start", "Approve the start of this rollout?",
            (f"The first stage, {first.title}, begins with {boards(first.devices)} once two people "
             "other than its maker said yes.",), "Approve",
        )  # fmt: skip
    following = info.stages[asking.index + 1] if asking.index + 1 < len(info.stages) else None
    more = following.devices - asking.devices if following else 0
    effect = f"It was the last stage: {boards(found.have)} have it."
    if following is not None:
        gets = f"{more} more {_s(more, 'board gets', 'boards get')} the release"
        effect = f"The next stage, {following.title}, begins: {gets}."
    return Action(
        "approve", f"Approve stage {asking.index + 1}", f"Approve stage {asking.title}?",
        (f"Its gate says: {asking.reason}.", effect), "Approve",
    )  # fmt: skip


def retry(session: Session, rollout: RolloutRow, now: float) -> Action:
    """Again, despite quarantine."""
    gate = knowledge.spec_of(rollout).stages[0].gate
    facts, _ = knowledge.standings_of(session, rollout.id)
    against = {Standing.FAILED, Standing.UNDECIDED}
    ended = sum(
        devices for each, devices in facts
        if each.phase.value in _BACK and standing(each, gate, now) in against
    )  # fmt: skip
    return Action(
        "retry", "Try again", "Try again where it failed?",
        (f"{boards(ended)} that failed or could not decide {_s(ended, 'gets', 'get')} the release "
         "again, despite quarantine. The first attempts stay on record.",),
        f"Try again on {boards(ended)}",
    )  # fmt: skip


def _untouched(found: Boards) -> str:
    count = found.unreached
    return f"{boards(count)} not reached yet {_s(count, 'gets', 'get')} nothing."


def _s(count: int, one: str, several: str) -> str:
    return one if count == 1 else several
