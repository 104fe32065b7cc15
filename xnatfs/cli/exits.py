"""From the project's errors to exit codes: the one table."""

from __future__ import annotations

from xnatfs import errors

OK = 0
FAILED = 1
USAGE = 2
NO_SERVER = 3
LOGIN = 4
NOT_PERMITTED = 5
NO_FUSE = 6
# As sysexits.h has them: EX_IOERR and EX_TEMPFAIL.
READS_FAILED = 74
NOT_ARRIVED = 75
# ``run``, as env(1) and nice(1) have them: xnatfs itself failed; the command could not be run.
COMMAND_FAILED = 125
COMMAND_NOT_EXECUTABLE = 126
COMMAND_NOT_FOUND = 127
INTERRUPTED = 130
# What a shell reports of a program that a closed pipe ended.
CLOSED_PIPE = 141

TABLE: dict[type[errors.XnatfsError], int] = {
    errors.XnatfsError: FAILED,
    errors.UsageError: USAGE,
    errors.NotXnat: NO_SERVER,
    errors.Unreachable: NO_SERVER,
    errors.ServerBusy: NO_SERVER,
    errors.Offline: NO_SERVER,
    errors.TransferBroken: NO_SERVER,
    # A command only ever waits that long for the server.
    errors.TimedOut: NO_SERVER,
    errors.LoginRefused: LOGIN,
    errors.Refused: NOT_PERMITTED,
    # XNAT has no such thing: nobody's permission would help.
    errors.NotSupported: FAILED,
    errors.FuseUnusable: NO_FUSE,
    errors.Interrupted: INTERRUPTED,
}


def code_of(error: errors.XnatfsError) -> int:
    """The exit code of an error: its class's, or the nearest class's above it."""
    for kind in type(error).__mro__:
        if kind in TABLE:
            return TABLE[kind]
    return FAILED
