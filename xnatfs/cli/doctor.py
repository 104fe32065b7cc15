"""Check what works on this machine: FUSE, folders, locks, the server and the login."""

from __future__ import annotations

import argparse
import fcntl
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xnatfs import __version__, options
from xnatfs.cli import exits
from xnatfs.cli.shown import bytes_text, expiry_text
from xnatfs.config import Settings
from xnatfs.configuration import choose
from xnatfs.errors import XnatfsError


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    what: str
    text: str
    # 0: works. Else the exit code that a mount would end with.
    code: int = exits.OK
    # It works, but somebody should look at it.
    warns: bool = False
    # A user's name that stands in the text.
    user: str = ""

    @property
    def mark(self) -> str:
        """The first word of its line."""
        return "problem" if self.code else "warning" if self.warns else "ok"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``doctor``."""
    parser.add_argument("place", nargs="?", metavar="SERVER", help="as with mount")
    parser.add_argument(
        "--report",
        action="store_true",
        help="more, for a ticket, and without names: of people, machines, projects, subjects",
    )
    options.add_to(parser, "doctor")


def run(args: argparse.Namespace) -> int:
    """Check everything, print everything; the exit code is that of the first problem."""
    if args.place:
        args.server = args.place
    settings = choose(args, os.environ, needs_server=False).settings
    code = exits.OK
    for finding in _findings(settings):
        text = _veiled(settings, finding.text, finding.user) if args.report else finding.text
        print(f"{finding.mark:<8}{finding.what:<16}{text}", flush=True)
        code = code or finding.code
    if args.report:
        for what, text in _more(settings):
            print(f"{'':<8}{what:<16}{_veiled(settings, text)}")
    return code


def _veiled(settings: Settings, text: str, user: str = "") -> str:
    """A text for a ticket, without names."""
    from xnatfs.cli.report import veiled
    from xnatfs.fuse import control
    from xnatfs.rest.login import stored_logins

    users = [record.user for record in control.records(settings.state_folder)]
    users += [login.name for _, login in stored_logins(settings.state_folder)]
    users += [os.environ.get(name, "") for name in ("XNAT_USER", "XNATPY_USER", "USER")]
    return veiled(text, settings.server.url, [user, settings.server.user, *users])


def _more(settings: Settings) -> Iterator[tuple[str, str]]:
    from xnatfs.cli import report, status
    from xnatfs.fuse import control

    yield from report.machine()
    for record in control.records(settings.state_folder):
        yield from report.mount(status.asked(record))


def _findings(settings: Settings) -> Iterator[Finding]:
    yield Finding("xnatfs", f"{__version__}, Python {platform.python_version()} on {_system()}")
    yield from _fuse()
    yield from _private_mounts()
    for what, folder in (("cache", settings.store.folder), ("spool", settings.spool.folder)):
        yield _folder(what, folder)
    yield _locks(settings.state_folder)
    yield _converter()
    yield from _secrets(settings)
    if settings.server.url:
        yield from _server(settings)
    else:
        yield Finding("server", "none is given (xnatfs doctor SERVER, or XNAT_HOST)")


def _system() -> str:
    from xnatfs.fuse.readiness import os_release

    return os_release().get("PRETTY_NAME", platform.platform())


def _fuse() -> Iterator[Finding]:
    from xnatfs.fuse import binding, readiness

    problems = readiness.problems(allow_other=False)
    for problem in problems:
        yield Finding("FUSE", problem, exits.NO_FUSE)
    if problems:
        return
    try:
        binding.load()
    except XnatfsError as error:
        yield Finding("FUSE", str(error), exits.NO_FUSE)
    else:
        yield Finding("FUSE", "libfuse, /dev/fuse and the right to mount")
    others = readiness.problems(allow_other=True)
    yield Finding("other users", others[0] if others else "--allow-other is possible")
    if crawlers := readiness.crawlers():
        yield Finding("indexers", crawlers, warns=True)


def _private_mounts() -> Iterator[Finding]:
    """Namespaces: the way to mount where there is no fusermount."""
    from xnatfs.fuse.private import why_not

    reason = why_not()
    works = "`xnatfs run` mounts privately, without fusermount"
    yield Finding("namespaces", reason or works, warns=bool(reason))


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return folder if folder.exists() else _existing(folder.parent)


def _folder(what: str, folder: Path) -> Finding:
    existing = _existing(folder)
    if not os.access(existing, os.W_OK | os.X_OK):
        return Finding(what, f"{folder}: may not be written", exits.FAILED)
    free = shutil.disk_usage(existing).free
    return Finding(what, f"{folder}: {bytes_text(free)} free")


def _locks(folder: Path) -> Finding:
    """Lustre and some NFS servers have no flock: sessions are then not shared as well."""
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return Finding("locks", f"{folder}: no locks here ({error.strerror}); it works without")
    return Finding("locks", str(folder))


def _converter() -> Finding:
    found = shutil.which("dcm2niix", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    return Finding("dcm2niix", found or "not found (pip install dcm2niix); only the demo needs it")


def _secrets(settings: Settings) -> Iterator[Finding]:
    """Passwords and tokens that others could read."""
    from xnatfs.rest.login import login_file
    from xnatfs.rest.netrc import netrc_file

    files = [netrc_file(os.environ)]
    if settings.server.url:
        files.append(login_file(settings.server.url, settings.state_folder))
    for file in files:
        try:
            mode = file.stat().st_mode & 0o777
        except OSError:
            continue
        if mode & 0o077:
            text = f"{file}: others may read it (mode {mode:04o}); run: chmod 600 {file}"
            yield Finding("passwords", text, warns=True)
    if os.environ.get("XNAT_PASS") and os.environ.get("PBS_JOBID"):
        text = (
            "XNAT_PASS is in this job's environment: what `qsub -v` and `qsub -V` pass on, "
            "everybody can read with `qstat -f`; use `xnatfs login` in its place"
        )
        yield Finding("passwords", text, warns=True)


def _server(settings: Settings) -> Iterator[Finding]:
    from xnatfs.cli.connecting import connector, waiter_for

    try:
        connect = connector(settings)
    except XnatfsError as error:
        yield Finding("login", str(error), exits.code_of(error))
        return
    try:
        fs = connect(waiter_for(settings))
    except XnatfsError as error:
        yield Finding("server", str(error), exits.code_of(error))
        return
    try:
        about = fs.status()
        names = sum(1 for _ in fs.readdir("/projects", waiter_for(settings)))
        user = about["user"] or "a guest"
        yield Finding(
            "server", f"{settings.server.url} as {user}, {names} projects", user=about["user"]
        )
        source, expires = about["login"]["source"], about["login"]["expires"]
        ends = f": {expiry_text(expires)}" if expires else ""
        yield Finding("login", f"by {source}{ends}")
    except XnatfsError as error:
        yield Finding("server", str(error), exits.code_of(error))
    finally:
        fs.close()
