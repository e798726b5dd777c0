"""Writes docs/reference from the code: commands, settings, the API, device classes.

python scripts/reference.py            # writes
python scripts/reference.py --check    # status 1 if a page is not as the code is
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperArgument, TyperGroup

from kedge_agent.settings import AgentSettings
from kedge_server.app import routed
from kedge_server.settings import ServerSettings
from kedge_shared.cli import build_app
from kedge_shared.device_classes import catalogue

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
_MADE = "<!-- Made by scripts/reference.py: change the code, not this page. -->\n"


def main() -> int:
    """Writes or checks every page; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = [name for name, text in pages().items() if _keep(FOLDER / name, text, check=check)]
    if check and stale:
        print(f"docs/reference is stale: {', '.join(stale)}; run make docs-reference",
              file=sys.stderr)  # fmt: skip
        return 1
    return 0


def pages() -> dict[str, str]:
    """Returns file name → what it must hold."""
    makers: Mapping[str, Callable[[], str]] = {
        "cli.md": cli_page, "settings.md": settings_page, "api.md": api_page,
        "openapi.json": openapi_text, "device-classes.md": device_classes_page,
    }  # fmt: skip
    return {name: make() for name, make in makers.items()}


def _keep(path: Path, text: str, *, check: bool) -> bool:
    """Returns whether the page was not as it must be; writes it unless only checked."""
    stale = not path.exists() or path.read_text() != text
    if stale and not check:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return stale


# Commands


def cli_page() -> str:
    """Returns every command with its options."""
    root = typer.main.get_command(build_app())
    head = (
        f"{_MADE}\n# Commands\n\nEvery command of `kedge`. What they have in common (servers, "
        "tokens, `--json`, exit statuses) stands in [Command line](../cli.md).\n"
    )
    return head + "".join(_command(root, "kedge", 1))


def _command(command: Any, name: str, depth: int) -> Iterator[str]:
    if depth > 1:
        yield f"\n{'#' * min(depth, 4)} {name}\n\n{_prose(command.help or '')}\n"
    if isinstance(command, TyperGroup):
        for each in sorted(command.commands):
            yield from _command(command.commands[each], f"{name} {each}", depth + 1)
        return
    shown = [each for each in command.params if each.name not in {"help"}]
    taken = "".join(f" {_usage(each)}" for each in shown if isinstance(each, TyperArgument))
    yield f"\n```\n{name}{taken}{' [OPTIONS]' if shown else ''}\n```\n"
    rows = [_row(each) for each in shown]
    if rows:
        yield "\n| | | default |\n|---|---|---|\n" + "".join(rows)


def _usage(argument: TyperArgument) -> str:
    name = (argument.metavar or argument.name or "").upper().strip("[]{}")
    dots = " …" if argument.nargs == -1 else ""
    return f"{name}{dots}" if argument.required else f"[{name}{dots}]"


def _row(parameter: Any) -> str:
    if isinstance(parameter, TyperArgument):
        names = f"`{_usage(parameter)}`"
    else:
        names = ", ".join(f"`{each}`" for each in [*parameter.opts, *parameter.secondary_opts])
    told = str(getattr(parameter, "help", "") or "")
    variable = getattr(parameter, "envvar", None)
    if variable:
        told += f" Variable: `{variable}`."
    return f"| {names} | {_cell(told)} | {_cell(_default(parameter))} |\n"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    default = parameter.default
    if (
        default in {None, "", False, ()}
        or callable(default)
        or "Sentinel" in type(default).__name__
    ):
        return ""
    return f"`{getattr(default, 'value', default)}`"


def _prose(text: str) -> str:
    return text.replace("<", "&lt;").strip()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


# Settings


def settings_page() -> str:
    """Returns the server's and the agent's settings."""
    server = _described(ServerSettings.__doc__ or "")
    rows = "".join(
        f"| `KEDGE_SERVER_{name.upper()}` | {_cell(server.get(name, ''))} | "
        f"{_cell(_value(None if each.is_required() else each.default, each.is_required()))} |\n"
        for name, each in ServerSettings.model_fields.items()
    )
    return (
        f"{_MADE}\n# Settings\n\n## Server\n\n`kedge server run` reads them from the environment; "
        "`--data`, `--trust`, `--host` and `--port` go before.\n\n| variable | what | default |\n"
        f"|---|---|---|\n{rows}\n## Agent\n\nFields of `agent.yaml`; "
        "`kedge agent schema` prints them as a JSON schema.\n\n" + "".join(_sections(AgentSettings))
    )


def _sections(kind: type, path: str = "") -> Iterator[str]:
    """Yields a table of a dataclass' fields, and those of what it holds."""
    told, inner = _described(kind.__doc__ or ""), []
    rows = ""
    for each in fields(kind):
        name = f"{path}{each.name}"
        default: Any = each.default
        factory: Any = each.default_factory
        if default is MISSING and factory is not MISSING:
            default = factory()
        if is_dataclass(default):
            inner.append((type(default), f"{name}."))
            continue
        shown = _value(None if default is MISSING else default, default is MISSING)
        rows += f"| `{name}` | {_cell(told.get(each.name, ''))} | {_cell(shown)} |\n"
    if rows:
        yield f"| field | what | default |\n|---|---|---|\n{rows}\n"
    for sub, prefix in inner:
        yield from _sections(sub, prefix)


def _value(value: Any, required: bool) -> str:
    if required:
        return "required"
    if value is None or value in ("", (), {}):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _described(text: str) -> dict[str, str]:
    """Returns field → what the Attributes section of a docstring says of it."""
    found: dict[str, str] = {}
    last = ""
    for line in text.partition("Attributes:")[2].splitlines():
        name, colon, said = line.strip().partition(": ")
        if colon and name.isidentifier() and not line.startswith(" " * 12):
            last, found[name] = name, said
        elif line.strip() and last:
            found[last] += f" {line.strip()}"
        elif not line.strip() and last:
            break
    return found


# API


def openapi() -> dict[str, Any]:
    """Returns the API's description, without a server."""
    return routed().openapi()


def openapi_text() -> str:
    """Returns the same as the file that is published."""
    return json.dumps(openapi(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def api_page() -> str:
    """Returns every route, by what it is about."""
    by_tag: dict[str, list[str]] = {}
    for path, operations in sorted(openapi()["paths"].items()):
        for method, each in operations.items():
            query = " ".join(
                f"`{one['name']}`" for one in each.get("parameters", ()) if one["in"] == "query"
            )
            row = f"| `{method.upper()} {path}` | {_cell(each.get('summary', ''))} | {query} |\n"
            by_tag.setdefault(each.get("tags", ["other"])[0], []).append(row)
    head = (
        f"{_MADE}\n# API\n\nThe description as a file: [openapi.json](openapi.json). A running "
        "server shows it at `/docs`, and serves it as `/openapi.json`. Every error answer is "
        '`{"error": …, "mend": …}`. [Python client](client.md) wraps all that operators use.\n'
    )
    tables = (
        f"\n## {tag}\n\n| route | what | query |\n|---|---|---|\n{''.join(rows)}"
        for tag, rows in sorted(by_tag.items())
    )
    return head + "".join(tables)


# Device classes


def device_classes_page() -> str:
    """Returns the catalogue."""
    rows = ""
    for name, each in sorted(catalogue().items()):
        budgets = [
            f"{field.name} {getattr(each.budgets, field.name):g}" for field in fields(each.budgets)
            if getattr(each.budgets, field.name) is not None
        ]  # fmt: skip
        runtime = f"{each.runtime.name} {each.runtime.range}"
        rows += (
            f"| `{name}` | {_cell(each.title)} | {_cell(runtime)} | {', '.join(each.arch)} | "
            f"{each.input_size} | {_cell(', '.join(budgets))} |\n"
        )
    return (
        f"{_MADE}\n# Device classes\n\nThe catalogue that Kedge ships: "
        "`kedge device-class list`, `show NAME`; `detect` says which one a board is. One's own is "
        "a YAML file of the same form ([Builds](../builder.md)).\n\n"
        "| class | board | runtime | architecture | input, pixels | budgets |\n"
        "|---|---|---|---|---|---|\n" + rows
    )


if __name__ == "__main__":
    sys.exit(main())
