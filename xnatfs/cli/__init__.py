"""The command line: one thin module per verb, found in the table here and imported when used."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import NoReturn

from xnatfs import __version__
from xnatfs.cli import exits
from xnatfs.errors import UsageError, XnatfsError


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb: its module has ``add_arguments(parser)`` and ``run(args) -> int``."""

    name: str
    help: str
    # The exit status of every failure of its own, where the others are those of a program.
    failed: int | None = None


VERBS = (
    Verb("mount", "mount an archive as a folder"),
    Verb("run", "mount for one command only, and send what it wrote", exits.COMMAND_FAILED),
    Verb("umount", "unmount, and wait until everything has arrived"),
    Verb("ls", "list a folder of the archive, without mounting"),
    Verb("find", "scans and sessions of a project, by type, quality, what is missing"),
    Verb("get", "copy files of the archive to a folder or a zip"),
    Verb("put", "send local files to a resource"),
    Verb("verify", "compare a local folder with the archive, without a download"),
    Verb("prefetch", "fetch what a mount without a network shall have"),
    Verb("status", "what is mounted here, and how it is doing"),
    Verb("uploads", "what has not reached the server yet"),
    Verb("cache", "the store of downloaded data: what is in it, check it, empty it"),
    Verb("refresh", "forget what is known of names; the next look asks the server"),
    Verb("url", "the web address of what a path means"),
    Verb("login", "get or enter a token that stands for your password, for jobs"),
    Verb("logout", "revoke that token and forget it"),
    Verb("doctor", "check what works on this machine, and say what to do"),
    Verb("demo", "a look-alike server, and the whole way through a job on it"),
)
_NAMES = {verb.name: verb for verb in VERBS}


class _Parser(argparse.ArgumentParser):
    """argparse with errors of one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where the help is."""
        raise UsageError(f"{message} (see `{self.prog} --help`)")

    def all_of(self, words: list[str]) -> argparse.Namespace:
        """As ``parse_args``, which does not say what an unknown option is near to."""
        args, rest = self.parse_known_args(words)
        if rest:
            # Without its value, which may be a password.
            word = rest[0].partition("=")[0]
            known = [each.removeprefix("--") for each in self._option_string_actions]
            near = _near(word.removeprefix("--"), known) if word.startswith("-") else ""
            self.error(f"unrecognized argument {word}{near}")
        return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; never raises, never prints a traceback."""
    words = list(sys.argv[1:] if argv is None else argv)
    _open_streams()
    try:
        try:
            code = _run(words)
        finally:  # argparse leaves by SystemExit after its help
            sys.stdout.flush()
    except XnatfsError as error:
        return _failed(error, words)
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.CLOSED_PIPE
    except Exception as error:  # noqa: BLE001 -- the last line of defence
        return _failed(XnatfsError(f"unexpected {error!r}; -v -v shows where"), words)
    return code


def _open_streams() -> None:
    """Open what daemons leave closed: Python has no stream then, and a pipe would get its number.

    A command that we execute gets it closed again.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 -- stays
    # Names are printed as a mount has them, in UTF-8, whatever the locale.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")


def _failed(error: XnatfsError, words: Sequence[str]) -> int:
    sys.stdout.flush()
    print(f"xnatfs: {error}", file=sys.stderr)
    if sum(word.count("v") for word in words if word in ("-v", "-vv", "--verbose")) > 1:
        import traceback

        traceback.print_exception(error.__context__ or error)
    verb = _NAMES.get(words[0]) if words else None
    return verb.failed if verb and verb.failed else exits.code_of(error)


def _run(words: list[str]) -> int:
    words = _mount_form(words)
    if not words or words[0].startswith("-"):
        parser = _overview()
        _, rest = parser.parse_known_args(words)
        if rest:
            word = rest[0].partition("=")[0]
            parser.error(f"unrecognized argument {word}; options stand after the verb")
        parser.print_help(sys.stderr)
        return exits.USAGE
    if words[0] not in _NAMES:
        raise UsageError(f"unknown verb {words[0]!r}{_near(words[0], _NAMES)}")
    module = import_module(f"xnatfs.cli.{words[0]}")
    parser = _Parser(
        prog=f"xnatfs {words[0]}", description=module.__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    module.add_arguments(parser)
    args = parser.all_of(words[1:])
    _set_up_log(args)
    code: int = module.run(args)
    return code


def _mount_form(words: list[str]) -> list[str]:
    """``xnatfs SERVER MOUNTPOINT -o …``, as mount(8) and fstab call a helper."""
    plain = len(words) >= 2 and not any(word.startswith("-") for word in words[:2])
    # With neither an address nor -o it is a verb that was mistyped.
    helper = plain and ("://" in words[0] or any(word.startswith("-o") for word in words[2:]))
    if helper and words[0] not in _NAMES:
        return ["mount", *words]
    return words


def _overview() -> argparse.ArgumentParser:
    verbs = "\n".join(f"  {verb.name:<10}{verb.help}" for verb in VERBS)
    parser = _Parser(
        prog="xnatfs",
        usage="xnatfs VERB [options]",
        description="An XNAT imaging archive as a folder.",
        epilog=f"verbs:\n{verbs}\n\n`xnatfs VERB --help` tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"xnatfs {__version__}")
    return parser


def _near(word: str, known: Iterable[str]) -> str:
    import difflib

    near = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""


def _set_up_log(args: argparse.Namespace) -> None:
    """The command's own log goes to stderr: warnings, and what -v asks for."""
    from xnatfs import logs

    level = ("warning", "info", "debug")[min(args.verbose, 2)]
    logs.set_up("error" if args.quiet else level, None)
