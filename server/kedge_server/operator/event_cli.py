"""``kedge events`` and ``kedge webhook``."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from kedge_server.operator.options import connected
from kedge_shared import wire
from kedge_shared.errors import InputError, one_line
from kedge_shared.events import KIND_PATTERN, WebhookRequest
from kedge_shared.options import Json, Server, TokenFile

if TYPE_CHECKING:
    from kedge_shared.events import EventInfo, WebhookInfo
    from kedge_shared.operator_client import OperatorClient

webhook = typer.Typer(no_args_is_help=True, help="Have events sent somewhere, signed.")
Kinds = Annotated[
    list[str] | None, typer.Option("--kind", help="rollout.halted, device.* …; may be repeated.")
]


def events(
    kind: Kinds = None,
    subject: Annotated[str, typer.Option(help="Only about this rollout or device.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as they come.")] = False,
    after: Annotated[
        int | None, typer.Option(min=0, help="With --follow: begin after this event; 0 is all.")
    ] = None,
    most: Annotated[int, typer.Option(min=1, max=1000, help="Newest events looked at.")] = 50,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show what happened to rollouts, gates and devices; --json is one object a line."""
    with connected(server, token_file) as client:
        if after is None:
            found = client.recent_events(kind or [], subject, most)
            for each in found:
                show_event(each, as_json=as_json)
            after = found[-1].id if found else None
        if follow:
            # To the other stream: what is read by a program holds events alone.
            for each in client.follow_events(kind or [], subject, after, lambda: _away(client)):
                show_event(each, as_json=as_json)


def check_kinds(kinds: Sequence[str]) -> tuple[str, ...]:
    """Returns kinds of events.

    Raises:
        InputError: One is none.
    """
    for each in kinds:
        if not re.match(KIND_PATTERN, each):
            raise InputError(
                f"{each!r} is no kind of event", "write one such as rollout.halted, device.* or *"
            )
    return tuple(kinds)


def _away(client: OperatorClient) -> None:
    typer.echo(f"server {client.server} is away; trying again", err=True)


@webhook.command("add")
def webhook_add(
    url: Annotated[str, typer.Argument(help="https://…")],
    kind: Kinds = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Send events to a URL. The secret that signs them is shown once."""
    request = WebhookRequest(url=url, kinds=check_kinds(kind or ["*"]))
    with connected(server, token_file) as client:
        made = client.add_webhook(request)
    if as_json:
        _json(made)
        return
    typer.echo(f"{made.id}: {made.url}")
    typer.echo(f"secret, shown this once: {made.secret}")


@webhook.command("list")
def webhook_list(server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """List webhooks."""
    with connected(server, token_file) as client:
        found = client.webhooks()
    if as_json:
        _json(found)
        return
    if not found:
        typer.echo("No webhook yet: `kedge webhook add URL`.")
    for each in found:
        typer.echo(one_line(f"{each.id}  {each.url}"))
        waits = f"{each.pending} waiting"
        typer.echo("    " + one_line(f"{', '.join(each.kinds)}; {_state(each)}; {waits}"))


@webhook.command("deliveries")
def webhook_deliveries(
    name: Annotated[str, typer.Argument(help="Webhook.")],
    most: Annotated[int, typer.Option(min=1, max=1000, help="So many.")] = 50,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show what was sent in a week, and what became of it."""
    with connected(server, token_file) as client:
        found = client.deliveries(name, most)
    if as_json:
        _json(found)
        return
    if not found:
        typer.echo("Nothing was sent in the last week.")
    # Lines, not a table: an id that is cut short cannot be sent again.
    for each in found:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(each.created))
        why = f": {one_line(each.reason)}" if each.reason else ""
        tries = f"{each.attempts} attempts" if each.attempts != 1 else "1 attempt"
        answer = f", answer {each.status}" if each.status else ""
        typer.echo(f"{each.id}  {at}  {each.kind:<20}  {each.state}, {tries}{answer}{why}")


def _changer(action: Callable[[OperatorClient, str], object], done: str) -> Callable[..., None]:
    def run(
        name: str,
        server: Server = "",
        token_file: TokenFile = None,
        as_json: Json = False,
    ) -> None:
        with connected(server, token_file) as client:
            found = action(client, name)
        if as_json and found is not None:
            _json(found)
        elif not as_json:
            typer.echo(f"{name} {done}")

    return run


webhook.command("remove", help="Remove a webhook with what is on its way.")(
    _changer(lambda client, name: client.remove_webhook(name), "removed")
)
webhook.command("enable", help="Take a disabled webhook up again.")(
    _changer(lambda client, name: client.enable_webhook(name), "enabled")
)
webhook.command("test", help="Send it an event that tells of nothing, to see whether it arrives.")(
    _changer(lambda client, name: client.test_webhook(name), "is sent a test")
)
webhook.command("redeliver", help="Send a delivery again, under the same id.")(
    _changer(lambda client, name: client.redeliver(name), "is sent again")
)


def _state(hook: WebhookInfo) -> str:
    return "enabled" if hook.enabled else f"disabled: {hook.reason}"


def _json(value: object) -> None:
    from kedge_server.operator.show import print_json

    print_json(value)


def show_event(event: EventInfo, *, as_json: bool) -> None:
    """Shows an event: a line for people, or an object on a line for machines."""
    if as_json:
        print(wire.encode(event).decode(), flush=True)
        return
    print(event_line(event), flush=True)


def event_line(event: EventInfo) -> str:
    """Returns an event as a line for people."""
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(event.at))
    if event.kind == "gap":
        return f"{at}  events after {event.data['after']} are not kept any more"
    said = event.data.get("reason") or event.data.get("release") or ""
    # White space is what one_line takes away: columns are made of what it leaves.
    parts = (f"{one_line(event.kind):<20}", one_line(event.subject), one_line(str(said)))
    return "  ".join((at, *parts)).rstrip()
