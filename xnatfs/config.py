"""The settings of xnatfs: one frozen dataclass for each concern, a comment for each field.

Everything below takes the dataclass of its own concern; nobody else reads the environment or a
configuration file (credentials excepted: ``rest.login``).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from xnatfs import __version__

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30


def _xdg(variable: str, fallback: str) -> Path:
    """A folder of the XDG base directory specification, with ``xnatfs`` appended."""
    base = os.environ.get(variable, "")
    # The specification: a relative path in these variables is to be ignored.
    root = Path(base) if base.startswith("/") else Path.home() / fallback
    return root / "xnatfs"


def cache_home() -> Path:
    """The default of ``--cache-dir``."""
    return _xdg("XDG_CACHE_HOME", ".cache")


def state_home() -> Path:
    """The state folder: receipts, sessions, mounts, and by default the spool."""
    return _xdg("XDG_STATE_HOME", ".local/state")


def config_home() -> Path:
    """The folder of ``config.toml``."""
    return _xdg("XDG_CONFIG_HOME", ".config")


def make_private(folder: Path) -> None:
    """Make a folder and its parent, those that are not there, for the owner alone.

    Raises: OSError.
    """
    # mkdir(parents=True) would give the parent the umask's mode.
    for path in (folder.parent, folder):
        path.mkdir(exist_ok=True, parents=True, mode=0o700)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Which server, and as whom."""

    # Base URL without a trailing slash; may carry a context path ("https://host/xnat").
    url: str
    # Login name asked for with -u; "" means: whatever the credentials found say.
    user: str = ""
    # A file of logins, looked into before everything else; None: $NETRC or ~/.netrc, in its turn.
    netrc: Path | None = None
    # Work as guest, on sites that are open.
    anonymous: bool = False
    # Send a password over plain http to a host other than the loopback.
    allow_http: bool = False
    # Share one server session among this user's processes (a site caps sessions at 1,000).
    shared_session: bool = True
    # Parallel connections of one mount.
    connections: int = 8
    # event_reason of every change; hospitals refuse changes without one.
    reason: str = f"xnatfs {__version__}"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long anything may wait. Seconds."""

    # Time without progress of a transfer; also the total budget of an operation on names.
    io_timeout_s: float = 60.0
    # For the TCP and TLS handshake.
    connect_timeout_s: float = 10.0
    # How long a terminated mount goes on sending before it leaves the rest to the next one.
    drain_s: float = 20.0
    # Age at which others' changes are seen: first in our listings, then in the kernel's memory.
    metadata_ttl_s: float = 60.0
    # A name that was not found is asked for again after this long.
    negative_ttl_s: float = 5.0

    @property
    def kernel_ttl_s(self) -> float:
        """How long the kernel believes names and attributes that it was told.

        Short, because no kernel before 6.16 can be told to forget: it is what a refresh waits for.
        """
        return min(5.0, self.metadata_ttl_s / 2)

    @property
    def listing_ttl_s(self) -> float:
        """How long our listings are believed, from when they were asked for; never 0."""
        return max(self.metadata_ttl_s - self.kernel_ttl_s, 0.001)


@dataclass(frozen=True, slots=True)
class Policy:
    """What may be changed."""

    read_only: bool = False
    # Change files that others made.
    allow_overwrite: bool = False
    # Remove files that others made.
    allow_delete: bool = False
    # Make subjects, sessions and scans.
    allow_create: bool = False
    # The data types of new sessions and scans.
    session_type: str = "xnat:mrSessionData"
    scan_type: str = "xnat:mrScanData"


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """The block store. Bytes and seconds."""

    folder: Path = field(default_factory=cache_home)
    size: int = 10 * GIB
    max_age_s: float = 30 * 86400.0
    # Fraction of the disk that stays free whatever ``size`` says.
    keep_free: float = 0.05
    # "strict": a contradiction with the catalog is EIO; "warn": it is logged and let through.
    verify: str = "strict"


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """The spool of what is not on the server yet."""

    folder: Path = field(default_factory=lambda: state_home() / "spool")
    # Bytes that may wait in the spool; 0 means: up to 5 % free disk.
    size: int = 0
    # close returns when the spool has the data; it is sent in the background.
    write_back: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """How the archive looks on this machine."""

    # "id" (4) or "id-type" (4-Ax_3D_T1).
    scan_names: str = "id"
    uid: int = field(default_factory=os.getuid)
    gid: int = field(default_factory=os.getgid)
    umask: int = 0o022
    # Subtree that becomes the root of the mount ("/" = everything).
    path: str = "/"


@dataclass(frozen=True, slots=True)
class Settings:
    """All of it, as the adapters hand it to ``fs``."""

    server: ServerSettings
    limits: Limits = Limits()
    policy: Policy = Policy()
    store: StoreSettings = field(default_factory=StoreSettings)
    spool: SpoolSettings = field(default_factory=SpoolSettings)
    view: View = field(default_factory=View)
    # Use no network: serve what the store has, keep what is written for later (write-back).
    offline: bool = False
    # Where receipts, shared sessions and the mounts' status files live.
    state_folder: Path = field(default_factory=state_home)
