"""Whether FUSE can be used on this machine, and in words what is missing.

libfuse reports every failure to mount with the same number; so the usual causes are looked for
before. ``mount`` stops at the first, ``doctor`` shows them all.
"""

from __future__ import annotations

import ctypes.util
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from xnatfs.errors import FuseUnusable

_DEVICE = Path("/dev/fuse")
_FUSE_CONF = Path("/etc/fuse.conf")

# Bit of CAP_SYS_ADMIN in the capability masks of /proc/PID/status.
_CAP_SYS_ADMIN = 21


def check(*, allow_other: bool, private: bool = False) -> None:
    """Stop before a mount that cannot work.

    Args:
        allow_other: whether other users are to be let in.
        private: in a namespace where this process may mount by itself, without fusermount.

    Raises: FuseUnusable: the first problem, with its remedy.
    """
    for problem in problems(allow_other=allow_other, private=private):
        raise FuseUnusable(problem)


def problems(*, allow_other: bool, private: bool = False) -> list[str]:
    """Everything that keeps FUSE from working here, each with its remedy; empty: nothing does."""
    found = [_library(), _device()]
    if not private:
        found += [_fusermount(), _others() if allow_other else ""]
    return [problem for problem in found if problem]


def _library() -> str:
    path = os.environ.get("FUSE_LIBRARY_PATH", "")
    if path:
        return "" if Path(path).exists() else f"FUSE_LIBRARY_PATH: {path} does not exist"
    if ctypes.util.find_library("fuse"):
        return ""
    return f"libfuse (version 2) is not installed: {how_to_install()}"


def _device() -> str:
    if not _DEVICE.exists():
        return (
            "there is no /dev/fuse: run `modprobe fuse` as root; start a container with "
            "--device /dev/fuse --cap-add SYS_ADMIN"
        )
    try:
        # Asked by opening it: in a container the mode can allow what the device rules forbid.
        os.close(os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return (
            f"/dev/fuse may not be opened ({error.strerror}): run `chmod 666 /dev/fuse` as root; "
            "start a container with --device /dev/fuse --cap-add SYS_ADMIN"
        )
    return ""


def _fusermount() -> str:
    if _may_mount():
        return ""
    # libfuse 2 looks for this name only; the package fuse3 brings it as a link.
    program = shutil.which("fusermount", path=f"{os.environ.get('PATH', '')}:/bin:/usr/bin")
    if program is None:
        return f"fusermount is not installed: {how_to_install()}"
    if not os.stat(program).st_mode & stat.S_ISUID and not _has_capability(program):
        return f"{program} may not mount: run `chmod u+s {program}` as root"
    return ""


def _may_mount() -> bool:
    """Whether this process may mount without help: root, or root of a user namespace."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_ADMIN & 1)
    return os.geteuid() == 0


def _has_capability(program: str) -> bool:
    try:
        return bool(os.getxattr(program, "security.capability"))
    except OSError:
        return False


def _others() -> str:
    if os.geteuid() == 0:
        return ""
    try:
        lines = _FUSE_CONF.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    if any(line.strip() == "user_allow_other" for line in lines):
        return ""
    return (
        "--allow-other is not allowed here: the administrator adds the line "
        f"user_allow_other to {_FUSE_CONF}"
    )


def os_release(root: Path = Path("/")) -> dict[str, str]:
    """The fields of os-release(5); empty where there is none."""
    for place in ("etc/os-release", "usr/lib/os-release"):
        try:
            text = (root / place).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
        return {key.strip(): value.strip().strip("\"'") for key, value in pairs}
    return {}


def how_to_install(release: Mapping[str, str] | None = None) -> str:
    """The command that installs libfuse and fusermount on this distribution."""
    fields = os_release() if release is None else release
    names = [fields.get("ID", ""), *fields.get("ID_LIKE", "").split()]
    try:
        version = float(fields.get("VERSION_ID", "0") or 0)
    except ValueError:
        version = 0.0
    if "ubuntu" in names or "debian" in names:
        # Since the move to 64-bit times the package has another name. Never "fuse": it
        # conflicts with fuse3 and takes parts of a desktop with it.
        newer = version >= (24 if names[0] == "ubuntu" else 13)
        library = "libfuse2t64" if newer else "libfuse2"
        return f"apt install {library} fuse3"
    if {"fedora", "rhel", "centos"} & set(names):
        return "dnf install fuse fuse-libs"
    if {"suse", "opensuse"} & set(names):
        return "zypper install libfuse2 fuse"
    if "arch" in names:
        return "pacman -S fuse2"
    if "alpine" in names:
        return "apk add fuse"
    return "install libfuse 2 and fusermount with the package manager of this system"
