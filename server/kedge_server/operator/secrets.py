"""Secrets of the operator's commands: asked for or read from files, never on a command line."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from kedge_shared import wire
from kedge_shared.accounts import PASSWORD_LEAST, PASSWORD_MOST
from kedge_shared.errors import InputError, StorageError


def new_password(file: Path | None) -> str:
    """Returns a password to be set, of a file or asked for twice.

    Raises:
        InputError: It is too short or too long, or the file cannot be read.
    """
    found = password(file) if file else typer.prompt(
        "New password", hide_input=True, confirmation_prompt=True, err=True
    )  # fmt: skip
    if not PASSWORD_LEAST <= len(found) <= PASSWORD_MOST:
        raise InputError(f"a password has {PASSWORD_LEAST} to {PASSWORD_MOST} characters")
    return str(found)


def password(file: Path | None, what: str = "Password") -> str:
    """Returns a password, of a file or asked for once.

    Raises:
        InputError: The file cannot be read.
    """
    if file is None:
        return str(typer.prompt(what, hide_input=True, err=True))
    data = wire.read_limited(file, "password file", 4096)
    try:
        return data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise InputError(f"password file {file} is no text") from None


def keep_token(path: Path, token: str) -> None:
    """Writes a token for its owner alone, in the place of an older one.

    Raises:
        StorageError: The file cannot be written.
    """
    scratch = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch.unlink(missing_ok=True)
        fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(token + "\n")
        scratch.replace(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from None
