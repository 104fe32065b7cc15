"""Whether FUSE can be used on this machine, and in words what is missing.

libfuse reports every failure to mount with the same number; so the usual causes are looked for
before. ``mount`` stops at the first, ``doctor`` shows them all.
"""

from __future__ import annotations

import importlib.util
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from xnatfs.errors import FuseUnusable
from xnatfs.fuse import binding
from xnatfs.fuse.mounts import FSTYPE

_DEVICE = Path("/dev/fuse")
_FUSE_CONF = Path("/etc/fuse.conf")
_UPDATEDB = Path("/etc/updatedb.conf")

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
    chosen = binding.library()
    if chosen is None:
        return f"libfuse is not installed: {how_to_install()}"
    if "/" in chosen.path and not Path(chosen.path).exists():
        return f"FUSE_LIBRARY_PATH: {chosen.path} does not exist"
    if chosen.major == 3 and importlib.util.find_spec("mfusepy") is None:
        return (
            "only libfuse 3 is installed, which takes a Python package more: "
            f"pip install mfusepy; or install libfuse 2: {how_to_install()}"
        )
    return ""


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
    chosen = binding.library()
    # Each version looks for its own; the package fuse3 brings the other as a link.
    name = "fusermount3" if chosen is not None and chosen.major == 3 else "fusermount"
    program = _program(name)
    if program is None:
        return f"{name} is not installed: {how_to_install()}"
    if not os.access(program, os.X_OK):
        number = os.stat(program).st_gid
        remedy = (
            f"`usermod -aG {_group_name(number)} {_user_name()}`; log in again after that"
            if number
            else f"`chmod 4755 {program}`"
        )
        return f"{program} may not be run by this user: the administrator runs {remedy}"
    if not os.stat(program).st_mode & stat.S_ISUID and not _has_capability(program):
        return f"{program} may not mount: run `chmod u+s {program}` as root"
    if _status_field("NoNewPrivs") == "1":
        return (
            f"{program} gets no rights here: this process runs with no_new_privs, which a "
            "container or a service has set (NoNewPrivileges=); use `xnatfs run`, or start it "
            "without that"
        )
    return ""


def _program(name: str) -> str | None:
    """Where a program is, whether this user may run it or not."""
    for folder in [*os.environ.get("PATH", "").split(":"), "/bin", "/usr/bin"]:
        if folder and os.path.isfile(path := os.path.join(folder, name)):
            return path
    return None


def _group_name(number: int) -> str:
    import grp

    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _user_name() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _status_field(name: str) -> str:
    """A field of this process's status, "" where the kernel does not have it."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return line.partition(":")[2].strip()
    return ""


def _may_mount() -> bool:
    """Whether this process may mount without help: root, or root of a user namespace."""
    mask = _status_field("CapEff")
    return bool(int(mask, 16) >> _CAP_SYS_ADMIN & 1) if mask else os.geteuid() == 0


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


def crawlers() -> str:
    """That updatedb(8) would walk mounts which root may enter, and the remedy; "": it would not."""
    try:
        text = _UPDATEDB.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(r"^\s*PRUNEFS\s*=\s*\"?([^\"\n]*)", text, re.MULTILINE)
    if found and FSTYPE.lower() in found[1].lower().split():
        return ""
    return (
        f"updatedb walks mounts that it may enter (those of root, and with --allow-other): "
        f"add {FSTYPE} to PRUNEFS in {_UPDATEDB}"
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
