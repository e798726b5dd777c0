"""``kedge events`` and ``kedge webhook``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from kedge_server.operator.options import DEFAULT_SERVER, connected
from kedge_shared import wire
from kedge_shared.errors import one_line
from kedge_shared.options import Json, Server, TokenFile

if TYPE_CHECKING:
    from kedge_shared.client import Client
    from kedge_shared.events import EventInfo, WebhookInfo

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
    server: Server = DEFAULT_SERVER,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show what happened to rollouts, gates and devices; --json is one object a line."""
    from kedge_shared import event_client

    with connected(server, token_file) as client:
        if after is None:
            found = event_client.recent(client, kind or [], subject, most)
            for each in found:
                show_event(each, as_json=as_json)
            after = found[-1].id if found else None
        if follow:
            for each in event_client.follow(client, kind or [], subject, after):
                show_event(each, as_json=as_json)


@webhook.command("add")
def webhook_add(
    url: Annotated[str, typer.Argument(help="https://…")],
    kind: Kinds = None,
    server: Server = DEFAULT_SERVER,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Send events to a URL. The secret that signs them is shown once."""
    from kedge_shared import event_client
    from kedge_shared.events import WebhookRequest

    # Decoded, so that a kind that cannot be is refused here, by name.
    asked = wire.encode({"url": url, "kinds": kind or ["*"]})
    request = wire.decode(asked, WebhookRequest, "webhook")
    with connected(server, token_file) as client:
        made = event_client.add_webhook(client, request)
    if as_json:
        _json(made)
        return
    typer.echo(f"{made.id}: {made.url}")
    typer.echo(f"secret, shown this once: {made.secret}")


@webhook.command("list")
def webhook_list(
    server: Server = DEFAULT_SERVER, token_file: TokenFile = None, as_json: Json = False
) -> None:
    """List webhooks."""
    from kedge_shared import event_client

    with connected(server, token_file) as client:
        found = event_client.webhooks(client)
    if as_json:
        _json(found)
        return
    if not found:
        typer.echo("no webhooks")
    for each in found:
        said = f"{each.id}  {each.url}  {', '.join(each.kinds)}  {_state(each)}"
        typer.echo(one_line(f"{said}, {each.pending} waiting"))


@webhook.command("deliveries")
def webhook_deliveries(
    name: Annotated[str, typer.Argument(help="Webhook.")],
    most: Annotated[int, typer.Option(min=1, max=1000, help="So many.")] = 50,
    server: Server = DEFAULT_SERVER,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show what was sent in a week, and what became of it."""
    from kedge_shared import event_client

    with connected(server, token_file) as client:
        found = event_client.deliveries(client, name, most)
    if as_json:
        _json(found)
        return
    if not found:
        typer.echo("nothing was sent yet")
    # Lines, not a table: an id that is cut short cannot be sent again.
    for each in found:
        why = f"{each.status or ''} {each.reason}".strip()
        tries = f"{each.attempts} attempts" if each.attempts != 1 else "1 attempt"
        typer.echo(one_line(f"{each.id}  {each.kind:<20}  {each.state}, {tries}  {why}"))


def _changer(action: Callable[[Client, str], object], done: str) -> Callable[..., None]:
    def run(
        name: str,
        server: Server = DEFAULT_SERVER,
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


def _remove(client: Client, name: str) -> None:
    from kedge_shared.event_client import remove_webhook

    remove_webhook(client, name)


def _enable(client: Client, name: str) -> object:
    from kedge_shared.event_client import enable_webhook

    return enable_webhook(client, name)


def _redeliver(client: Client, name: str) -> object:
    from kedge_shared.event_client import redeliver

    return redeliver(client, name)


webhook.command("remove", help="Remove a webhook with what is on its way.")(
    _changer(_remove, "removed")
)
webhook.command("enable", help="Take a disabled webhook up again.")(_changer(_enable, "enabled"))
webhook.command("redeliver", help="Send a delivery again, under the same id.")(
    _changer(_redeliver, "is sent again")
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
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(event.at))
    if event.kind == "gap":
        print(f"{at}  events after {event.data['after']} are not kept any more", flush=True)
        return
    said = event.data.get("reason") or event.data.get("release") or ""
    print(one_line(f"{at}  {event.kind:<20} {event.subject}  {said}"), flush=True)
