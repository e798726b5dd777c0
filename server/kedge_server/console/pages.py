"""The pages there are: what the navigation shows, and to whom. The one place that adds a page."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from fastapi import APIRouter

from kedge_server.accounts.roles import Permission


@dataclass(frozen=True)
class Page:
    """A page of the navigation.

    Attributes:
        name: Of its package, and of its section.
        title: What people read.
        path: Where it begins.
        permission: Who is shown it; its routes ask for themselves.
        router: Returns its routes.
    """

    name: str
    title: str
    path: str
    permission: Permission
    router: Callable[[], APIRouter]


def _fleet() -> APIRouter:
    from kedge_server.console.fleet.routes import router

    return router


def _rollouts() -> APIRouter:
    from kedge_server.console.rollouts import actions, creation, routes

    # "/rollouts/new" before "/rollouts/{rollout}".
    return joined(creation.router, routes.router, actions.router)


def _devices() -> APIRouter:
    from kedge_server.console.devices.routes import router

    return router


def _enrolments() -> APIRouter:
    from kedge_server.console.enrolments.routes import router

    return router


def _models() -> APIRouter:
    from kedge_server.console.models.routes import router

    return router


def _audit() -> APIRouter:
    from kedge_server.console.audit.routes import router

    return router


def _trust() -> APIRouter:
    from kedge_server.console.trust.routes import router

    return router


def _settings() -> APIRouter:
    from kedge_server.console.settings import hooks, own, users

    return joined(own.router, users.router, hooks.router)


def joined(*parts: APIRouter) -> APIRouter:
    """Returns the routes of a page that has several modules of them."""
    whole = APIRouter()
    for each in parts:
        whole.include_router(each)
    return whole


#: In the order of the navigation.
PAGES: tuple[Page, ...] = (
    Page("fleet", "Fleet", "/", Permission.READ, _fleet),
    Page("devices", "Devices", "/devices", Permission.READ, _devices),
    Page("enrolments", "Enrolment", "/enrolments", Permission.ENROL, _enrolments),
    Page("rollouts", "Rollouts", "/rollouts", Permission.READ, _rollouts),
    Page("models", "Models", "/models", Permission.READ, _models),
    Page("trust", "Keys and trust", "/trust", Permission.READ, _trust),
    Page("audit", "Audit", "/audit", Permission.AUDIT, _audit),
    Page("settings", "Settings", "/settings", Permission.SELF, _settings),
)


def near(path: str) -> Page | None:
    """Returns the page that a path is behind; ``None`` if it is none, or the fleet's."""
    behind = (each for each in PAGES if each.path != "/" and path.startswith(f"{each.path}/"))
    return next(behind, None)


def shown_to(permissions: Collection[Permission]) -> tuple[Page, ...]:
    """Returns the pages that somebody may look at."""
    return tuple(each for each in PAGES if each.permission in permissions)
