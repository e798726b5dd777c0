"""``kedge server backup|restore|check|collect``: beside a server that may be running."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kedge_shared.errors import InputError, StorageError
from kedge_shared.options import Json

if TYPE_CHECKING:
    from kedge_server.operation.findings import Checked

Data = Annotated[Path, typer.Option(help="The server's data folder.")]
Trust = Annotated[Path, typer.Option(help="The server's trust folder.")]
_DAY = 86400


def backup(
    target: Annotated[Path, typer.Argument(help="A folder, or a file that ends with .tar.")],
    data: Data,
    trust: Trust,
    as_json: Json = False,
) -> None:
    """Back up database, artifacts and online keys, also while the server runs.

    Into a folder that holds a backup only what is new is written. Keep it as secret as the keys.
    """
    from kedge_server.operation.backup import backup as make
    from kedge_server.operator.show import print_json

    contents = make(data, trust, target, time.time())
    size = sum(contents.artifacts.values())
    if as_json:
        print_json(contents)
    else:
        typer.echo(f"{target}: database of revision {contents.revision}, "
                   f"{len(contents.artifacts)} artifacts, {size / 1e6:.1f} MB")  # fmt: skip
    if contents.missing:
        digest, why = next(iter(contents.missing.items()))
        raise StorageError(
            f"backed up, but {len(contents.missing)} needed artifacts are missing or damaged on "
            f"this server, {digest[:12]} ({why}) first", "`kedge server check`",
        )  # fmt: skip


def restore(
    source: Annotated[Path, typer.Argument(help="What `kedge server backup` wrote.")],
    data: Data,
    trust: Annotated[
        Path | None, typer.Option(help="Trust folder to make; not needed if the keys are in place.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a server's folders from a backup; they must be empty."""
    from kedge_server.operation.restore import restore as bring_back
    from kedge_server.operator.show import print_json

    contents = bring_back(source, data, trust)
    if as_json:
        print_json(contents)
        return
    typer.echo(f"{data}: as of {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(contents.made))} "
               f"UTC, {len(contents.artifacts)} artifacts")  # fmt: skip
    typer.echo("then publish again what was published since, and `kedge keys push`")


def check(
    data: Data,
    trust: Trust,
    quick: Annotated[
        bool, typer.Option("--quick", help="Look at lengths of artifacts, not at their bytes.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check database, audit log, artifacts, metadata; status 1 broken, 3 soon to be seen to."""
    from kedge_server.operation.check import check as look
    from kedge_server.operation.check import utc_now
    from kedge_server.operator.show import print_json
    from kedge_server.settings import ServerSettings

    found = look(ServerSettings(data=data, trust=trust), utc_now(), hashed=not quick)
    if as_json:
        print_json(found)
    else:
        _show(found)
    raise typer.Exit(found.exit_code)


def collect(
    data: Data,
    older_than_days: Annotated[
        float, typer.Option(min=0.01, help="Leave what was uploaded or asked for since.")
    ] = 7,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: Json = False,
) -> None:
    """Remove artifacts that no target, rollout, assignment, board or job needs."""
    from kedge_server.operation.collect import collect as take_away
    from kedge_server.operator.options import finite
    from kedge_server.operator.show import print_json

    age = finite("--older-than-days", older_than_days) * _DAY
    if not data.is_dir():
        raise InputError(f"{data} is no folder", "name the server's --data")
    done = take_away(data, age, time.time(), dry_run=dry_run)
    if as_json:
        print_json(done)
        return
    size = sum(done.removed.values())
    verb = "would be removed" if dry_run else "removed"
    typer.echo(f"{len(done.removed)} artifacts, {size / 1e6:.1f} MB {verb}; {done.kept} kept, "
               f"{done.young} of them unneeded but young")  # fmt: skip


def _show(found: Checked) -> None:
    from kedge_server.operator.show import print_table

    how = "read" if found.hashed else "measured"
    typer.echo(
        f"revision {found.revision or 'unknown'}; {found.artifacts} needed artifacts, "
        f"{found.artifact_bytes / 1e6:.1f} MB {how}; {found.audit_rows} rows of audit log"
    )
    rows = [(each.level, each.subject, each.what, each.mend) for each in found.findings]
    print_table("Findings", ("", "of", "what", "mend"), rows, "nothing to be done")
