"""A PostgreSQL of the tests' own: started once, a fresh database for each test."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from kedge_server.database import connect, upgrade

_TEMPLATE = "kedge_template"
#: What a fresh start may take on a busy machine, seconds.
_PATIENCE = 60


def missing() -> str:
    """Returns what keeps PostgreSQL from being started here; empty if nothing does."""
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "psycopg is not installed"
    if shutil.which("initdb") is None or shutil.which("postgres") is None:
        return "initdb and postgres are not on the path"
    if os.getuid() == 0 and (shutil.which("setpriv") is None or not _user()):
        return "PostgreSQL does not run as root, and there is no user postgres"
    return ""


def _user() -> bool:
    import pwd

    try:
        pwd.getpwnam("postgres")
    except KeyError:
        return False
    return True


class Postgres:
    """A server in a folder.

    Attributes:
        port: On 127.0.0.1.
    """

    def __init__(self, home: Path, options: tuple[str, ...]) -> None:
        self._home, self._options, self._count = home, options, 0
        self._has_template = False
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        if os.getuid() == 0:
            shutil.chown(home, "postgres")
        self._run("initdb", "-D", str(home / "data"), "-U", "kedge", "-A", "trust", "-E", "UTF8")

    def _command(self, *arguments: str) -> list[str]:
        given = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        return [*given, *arguments] if os.getuid() == 0 else [*arguments]

    def _run(self, *arguments: str) -> None:
        subprocess.run(self._command(*arguments), check=True, capture_output=True, cwd=self._home)

    def start(self) -> None:
        """Starts it and waits until it answers."""
        options = [part for each in self._options for part in ("-c", each)]
        self._process = subprocess.Popen(
            self._command(
                "postgres", "-D", str(self._home / "data"), "-p", str(self.port),
                "-k", str(self._home), "-c", "max_connections=200", *options,
            ), cwd=self._home, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                self._execute("SELECT 1")
            except OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Ends it: SIGINT closes connections at once, SIGKILL is a crash."""
        if self._process is None:
            return
        self._process.send_signal(how)
        self._process.wait(_PATIENCE)
        self._process = None
        if how is signal.SIGKILL:
            # Its children notice that it is gone before another one may start.
            pid = self._home / "data" / "postmaster.pid"
            time.sleep(1)
            pid.unlink(missing_ok=True)

    def url(self, database: str) -> str:
        """Returns a database's address."""
        return f"postgresql://kedge@127.0.0.1:{self.port}/{database}"

    def fresh(self) -> str:
        """Returns the address of a new database with every table."""
        if not self._has_template:
            self._execute(f"CREATE DATABASE {_TEMPLATE}")
            engine = connect(self.url(_TEMPLATE))
            upgrade(engine)
            engine.dispose()
            self._has_template = True
        return self._copy(_TEMPLATE)

    def empty(self) -> str:
        """Returns the address of a new database without any table."""
        return self._copy("template1")

    def plain(self) -> str:
        """Returns the address of a new database without an encoding."""
        return self._copy("template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'")

    def _copy(self, template: str) -> str:
        self._count += 1
        name = f"kedge_{self._count}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def _execute(self, statement: str) -> None:
        url = make_url(self.url("postgres")).set(drivername="postgresql+psycopg")
        engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
        engine.dispose()


@contextmanager
def postgres(*options: str) -> Iterator[Postgres]:
    """Runs a PostgreSQL; without ``options`` one that a power cut would harm."""
    # Not in a test's own folder, which only the test's user may enter.
    with tempfile.TemporaryDirectory(prefix="kedge-postgres-") as folder:
        found = Postgres(Path(folder), options or ("fsync=off",))
        found.start()
        try:
            yield found
        finally:
            found.stop()
