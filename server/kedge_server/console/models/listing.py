"""Models and their releases, page by page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Sequence
from dataclasses import dataclass

from sqlalchemy import select as select_columns
from sqlmodel import Session, and_, col, func, or_, select
from sqlmodel.sql.expression import SelectOfScalar

from kedge_server.console.models.builds import Build, build_of
from kedge_server.errors import NotFoundError
from kedge_server.releases.tables import BuildRow, ReleaseRow

MODELS_SHOWN, RELEASES_SHOWN, FRONT_SHOWN, CHOICES_SHOWN = 50, 25, 200, 500


@dataclass(frozen=True)
class ModelLine:
    """A model in the list.

    Attributes:
        name: It.
        releases: How many it has.
        newest: The one with the highest counter, with its builds.
    """

    name: str
    releases: int
    newest: ReleaseLine


@dataclass(frozen=True)
class ReleaseLine:
    """A release in a list.

    Attributes:
        release: Its row.
        builds: By device class.
    """

    release: ReleaseRow
    builds: tuple[Build, ...]

    @property
    def taken_back(self) -> bool:
        """None of its builds is listed any more."""
        return not any(each.listed for each in self.builds)

    @property
    def keys(self) -> list[tuple[str, str, str]]:
        """What boards that run it report."""
        return [each.key for each in self.builds]


def models(session: Session, listed: Container[str], after: str) -> tuple[list[ModelLine], str]:
    """Returns models by name, and the last name if more follow."""
    query = (
        select_columns(col(ReleaseRow.model), func.count())
        .where(col(ReleaseRow.model) > after)
        .group_by(col(ReleaseRow.model))
        .order_by(col(ReleaseRow.model))
        .limit(MODELS_SHOWN + 1)
    )
    rows = session.execute(query).all()
    following = rows[MODELS_SHOWN - 1][0] if len(rows) > MODELS_SHOWN else ""
    found = []
    for name, count in rows[:MODELS_SHOWN]:
        newest = session.exec(_newest_first(name).limit(1)).one()
        found.append(ModelLine(name, count, _lines(session, name, [newest], listed)[0]))
    return found, following


def releases(
    session: Session, model: str, listed: Container[str], before: tuple[int, str] | None
) -> tuple[list[ReleaseLine], tuple[int, str] | None]:
    """Returns a model's releases, highest counter first, and where the next page begins.

    Args:
        session: Of the request.
        model: It.
        listed: Target paths that are signed now.
        before: Only those that come after this counter and release.

    Raises:
        NotFoundError: There is no such model.
    """
    query = _newest_first(model)
    if before is not None:
        counter, name = before
        same = and_(col(ReleaseRow.release_counter) == counter, col(ReleaseRow.release) < name)
        query = query.where(or_(col(ReleaseRow.release_counter) < counter, same))
    rows = list(session.exec(query.limit(RELEASES_SHOWN + 1)))
    if not rows and before is None:
        raise NotFoundError(f"there is no model {model}", "`kedge release list`")
    last = rows[RELEASES_SHOWN - 1] if len(rows) > RELEASES_SHOWN else None
    following = (last.release_counter, last.release) if last else None
    return _lines(session, model, rows[:RELEASES_SHOWN], listed), following


def _newest_first(model: str) -> SelectOfScalar[ReleaseRow]:
    """Returns a query of a model's releases; of two with one counter, by their names."""
    query: SelectOfScalar[ReleaseRow] = select(ReleaseRow).where(ReleaseRow.model == model)
    return query.order_by(col(ReleaseRow.release_counter).desc(), col(ReleaseRow.release).desc())


def release(session: Session, model: str, name: str, listed: Container[str]) -> ReleaseLine:
    """Returns one release.

    Raises:
        NotFoundError: There is none.
    """
    row = session.get(ReleaseRow, (model, name))
    if row is None:
        raise NotFoundError(f"there is no release {model} {name}", "`kedge release list`")
    return _lines(session, model, [row], listed)[0]


def names(session: Session, model: str) -> list[str]:
    """Returns the names of a model's releases, highest counter first."""
    query = select_columns(col(ReleaseRow.release)).where(col(ReleaseRow.model) == model)
    ordered = query.order_by(col(ReleaseRow.release_counter).desc(), col(ReleaseRow.release).desc())
    return list(session.execute(ordered.limit(CHOICES_SHOWN)).scalars())


def classes(session: Session, model: str) -> list[str]:
    """Returns the classes that a model was ever built for, those with most releases first."""
    query = (
        select_columns(col(BuildRow.device_class))
        .where(col(BuildRow.model) == model)
        .group_by(col(BuildRow.device_class))
        .order_by(func.count().desc(), col(BuildRow.device_class))
    )
    return list(session.execute(query).scalars())


def of_class(
    session: Session, model: str, device_class: str, listed: Container[str]
) -> list[Build]:
    """Returns a model's newest builds for a class, newest last."""
    query = (
        select(BuildRow)
        .join(ReleaseRow, (col(ReleaseRow.model) == BuildRow.model)
              & (col(ReleaseRow.release) == BuildRow.release))
        .where(BuildRow.model == model, BuildRow.device_class == device_class)
        .order_by(col(ReleaseRow.release_counter).desc())
        .limit(FRONT_SHOWN)
    )  # fmt: skip
    return [build_of(each, listed) for each in session.exec(query)][::-1]


def _lines(
    session: Session, model: str, rows: Sequence[ReleaseRow], listed: Container[str]
) -> list[ReleaseLine]:
    names = [each.release for each in rows]
    query = (
        select(BuildRow)
        .where(BuildRow.model == model, col(BuildRow.release).in_(names))
        .order_by(col(BuildRow.device_class))
    )
    builds: dict[str, list[Build]] = defaultdict(list)
    for each in session.exec(query):
        builds[each.release].append(build_of(each, listed))
    return [ReleaseLine(each, tuple(builds[each.release])) for each in rows]
