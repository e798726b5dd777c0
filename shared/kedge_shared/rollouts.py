"""What an operator asks for: rollouts, their stages and what a stage must prove.

Frozen dataclasses; the server reads them from JSON, ``kedge rollout create -f`` from YAML.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from msgspec import Meta

from kedge_shared.ids import Name, Share
from kedge_shared.windows import WindowSpec

#: What happens when every device of a stage has spoken and the test still cannot say.
OnExhausted = Literal["hold", "ask", "widen"]
#: A probability that a test may be wrong with; neither 0 nor a coin.
Risk = Annotated[float, Meta(gt=0, le=0.5)]
#: A share that a likelihood can be made of.
InnerShare = Annotated[float, Meta(gt=0, lt=1)]
Seconds = Annotated[float, Meta(ge=0)]
#: RSQL (kedge_server.devices.selectors).
SELECTOR_MOST = 1000
SelectorText = Annotated[str, Meta(max_length=SELECTOR_MOST)]


@dataclass(frozen=True, kw_only=True)
class SequentialSpec:
    """A test that may be looked at after every device (kedge_server.rollouts.sequential).

    Attributes:
        good_share: Share of failing devices that is borne.
        bad_share: Share that is not: the test tells the two apart, for each device class.
        alpha: Chance that a good release is ever halted, over all stages, classes and measures.
        beta: Chance that a class with ``bad_share`` passes a stage.
        latency_ratio: A class is slower if its boards' p95 grows by more than this, against boards
            of the class that have not been reached; ``None`` does not ask.
        min_agreement: Least share of the older engine's detections that a board of the class sees
            in probation; ``None`` does not ask.
        on_exhausted: ``hold`` waits for more devices, ``ask`` for ``kedge rollout approve``,
            ``widen`` takes the next stage's devices in, unless the odds are 1/alpha against it.
    """

    good_share: InnerShare = 0.01
    bad_share: InnerShare = 0.10
    alpha: Risk = 0.05
    beta: Risk = 0.05
    latency_ratio: Annotated[float, Meta(ge=1, le=10)] | None = 1.10
    min_agreement: Share | None = None
    on_exhausted: OnExhausted = "ask"


@dataclass(frozen=True, kw_only=True)
class LimitSpec:
    """What stops a rollout at once, whatever a test says.

    Attributes:
        failed: Failed devices of the rollout, in number.
        latency_p95_ms: Of a board that has the release.
        error_share: Frames on which the engine failed, of a board that has the release.
    """

    failed: Annotated[int, Meta(ge=1)] | None = None
    latency_p95_ms: Annotated[float, Meta(gt=0)] | None = None
    error_share: Share | None = None


@dataclass(frozen=True, kw_only=True)
class GateSpec:
    """What a stage must prove before the next begins, for each device class by itself.

    Attributes:
        max_failure_share: Failed deployments of the cohort's class above which the stage fails;
            not asked with ``sequential``.
        min_healthy: Devices with proof of health (confirmed) that each class needs; ``None`` is
            every device that has not failed, and one at least; not asked with ``sequential``.
        soak_seconds: How long the devices that proved it must stay healthy.
        silence_seconds: A device that was assigned and says nothing final for so long has failed.
        sequential: A test instead of the two thresholds.
        limits: Beside either.
    """

    max_failure_share: Share = 0.0
    min_healthy: Annotated[int, Meta(ge=1)] | None = None
    soak_seconds: Seconds = 60.0
    silence_seconds: Annotated[float, Meta(gt=0)] = 1800.0
    sequential: SequentialSpec | None = None
    limits: LimitSpec = LimitSpec()


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """One stage of a rollout. Cohorts are cumulative; exactly one of the first three is given.

    Attributes:
        percent: Share of the selected devices of each class that has the release after this
            stage, 0..100, rounded up.
        count: Devices of each class that have it after this stage.
        selector: RSQL over device facts and tags: those of the selected devices that match.
        gate: What it must prove.
        approval: A person must say yes (``kedge rollout approve``) after the gate has passed.
    """

    percent: Annotated[float, Meta(gt=0, le=100)] | None = None
    count: Annotated[int, Meta(ge=1)] | None = None
    selector: SelectorText = ""
    gate: GateSpec = GateSpec()
    approval: bool = False

    @property
    def title(self) -> str:
        """What people read: ``20 %``, ``40 of each class`` or the selector."""
        if self.percent is not None:
            return f"{self.percent:g} %"
        return f"{self.count} of each class" if self.count is not None else self.selector


#: Why a board could not decide, which says nothing of the release: only that is tried again.
RetryCode = Literal["memory", "disk", "network", "undecided"]


@dataclass(frozen=True, kw_only=True)
class RetrySpec:
    """Boards that could not decide are given the release again.

    A board that the release harmed is not: its failure is evidence, and only a person takes it
    back (``kedge rollout retry``).

    Attributes:
        codes: Of the verdicts that are tried again.
        limit: Attempts of a board in all.
        backoff_seconds: Before the second attempt; doubled with each that follows.
    """

    codes: tuple[RetryCode, ...] = ("memory", "disk", "network", "undecided")
    limit: Annotated[int, Meta(ge=1, le=20)] = 3
    backoff_seconds: Annotated[float, Meta(gt=0)] = 600.0


@dataclass(frozen=True, kw_only=True)
class RolloutSpec:
    """What an operator asks for.

    Attributes:
        model: Model.
        release: Release to roll out.
        stages: In order; percents and counts grow, the last is 100 % unless only a part is wanted.
        tags: Devices that carry all of these tags; empty is every device.
        recall: A recall goes back to an older release.
        selector: RSQL over device facts and tags; empty is every device.
        order: Selectors; the boards of the first come first, those of none last. Chance decides
            among equals.
        priority: Of overlapping rollouts of a model the higher one has a board.
        blast_radius: So many boards at most have the release and have not proven healthy.
        deadline_hours: After it the rollout stops; boards keep what they have.
        retry: Boards that could not decide are tried again; ``None`` is once only.
        two_person: Nothing begins, and no stage that asks goes on, before two people other than
            its creator said yes (``kedge rollout approve``).
        window: When boards may be worked on, in their own time; ``None`` is always. What takes
            harm back waits for no window.
        download_slots: So many boards fetch at a time; the others are told when to come back.
        downloads_per_minute: So many boards begin to fetch in a minute.
    """

    model: Name
    release: Name
    stages: Annotated[tuple[StageSpec, ...], Meta(min_length=1, max_length=20)]
    tags: dict[str, str] = field(default_factory=dict)
    recall: bool = False
    selector: SelectorText = ""
    order: Annotated[tuple[SelectorText, ...], Meta(max_length=20)] = ()
    priority: Annotated[int, Meta(ge=0, le=1000)] = 0
    blast_radius: Annotated[int, Meta(ge=1)] | None = None
    deadline_hours: Annotated[float, Meta(gt=0, le=24 * 365)] | None = None
    retry: RetrySpec | None = None
    two_person: bool = False
    window: WindowSpec | None = None
    download_slots: Annotated[int, Meta(ge=1)] | None = None
    downloads_per_minute: Annotated[int, Meta(ge=1)] | None = None
