"""The main job, guided: a server, a mount, dcm2niix on it, the results back, and the proof.

Every step is a command that a person could type, printed before it runs. Whatever happens, the
mount and the server are gone at the end and so is the temporary folder.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path

from xnatfs.cli.plainrest import PlainRest, case_scans
from xnatfs.cli.shown import bytes_text, count_text
from xnatfs.errors import ServerFault, XnatfsError
from xnatfs.fuse import mounts, readiness

# The look-alike's owner; the password is the name, and no secret.
_USER = "admin"

_STEP_S = 300.0
_STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class Job:
    """Which scan of which session is converted."""

    project: str
    subject: str
    session: str
    scan: str

    @property
    def session_path(self) -> str:
        """Below the mount point, and below /data."""
        return f"/projects/{self.project}/subjects/{self.subject}/experiments/{self.session}"

    @property
    def resources(self) -> str:
        """The folder of the scan's resources, likewise."""
        return f"{self.session_path}/scans/{self.scan}/resources"


SAMPLE = Job("PVT000", "Haofei01", "Haofei01_MR1", "4")
CASE = Job("PVT001", "Case001", "Case001_MR1", "5")


def walk(case: Path | None) -> None:
    """Do the whole job.

    Args:
        case: a folder with a real session to work on; None for the synthetic one.

    Raises: FuseUnusable; XnatfsError, which says the step that failed.
    """
    readiness.check(allow_other=False)
    converter = _converter()
    job = SAMPLE if case is None else CASE
    folder = Path(tempfile.mkdtemp(prefix="xnatfs-demo-"))
    try:
        for name in ("archive", "results", "xnat"):
            (folder / name).mkdir()
        shell = _Shell(folder)
        with _server(shell, folder / "archive", case) as url:
            rest = PlainRest(url, _USER, _USER)
            shell.say(f"export XNAT_USER={_USER} XNAT_PASS={_USER}")
            with _mount(shell, url, folder / "xnat") as place:
                scanned = _convert(shell, converter, place, job, folder / "results")
                proved = _prove(shell, rest, job, folder / "results")
            _summary(proved, folder / "results", scanned)
    finally:
        # Never through a mount that would not go away: that is the archive.
        if mounts.mounted_at(folder / "xnat") is None:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"xnatfs: {folder} is left: its mount would not go away", file=sys.stderr)


class _Shell:
    """Runs commands as a person would, in an environment that is the demo's own."""

    def __init__(self, folder: Path) -> None:
        ours = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("XNAT_", "XNATPY_", "XNATFS_"))
        }
        self.environment = ours | {
            "XNAT_USER": _USER,
            "XNAT_PASS": _USER,
            "XDG_CACHE_HOME": str(folder / "cache"),
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_CONFIG_HOME": str(folder / "config"),
        }

    def say(self, *words: str) -> None:
        """Print a command that is run, or could be."""
        print("+ " + (shlex.join(words) if len(words) > 1 else words[0]), flush=True)

    def run(self, *words: str, shown: str = "", tail: int | None = None) -> str:
        """Run a command.

        Args:
            words: the command; ``xnatfs`` is this very program.
            shown: how it is printed, if not as it is.
            tail: catch its output and print only so many of the last lines.

        Returns: the output, if it was caught.

        Raises: XnatfsError: it failed.
        """
        self.say(shown or shlex.join(words))
        try:
            done = subprocess.run(
                _real(words),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if tail is not None else None,
                stderr=subprocess.STDOUT if tail is not None else None,
                text=True,
                errors="replace",
                timeout=_STEP_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise XnatfsError(f"demo: {words[0]} failed: {error}") from error
        if tail is not None:
            lines = done.stdout.splitlines()
            print("\n".join(lines if done.returncode else lines[-tail:]), flush=True)
        if done.returncode:
            raise XnatfsError(f"demo: {words[0]} ended with status {done.returncode}")
        return done.stdout or ""


def _real(words: tuple[str, ...]) -> list[str]:
    if words[0] == "xnatfs":
        return [sys.executable, "-m", "xnatfs", *words[1:]]
    return list(words)


def _converter() -> str:
    places = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    found = shutil.which("dcm2niix", path=places)
    if found is None:
        raise XnatfsError("demo: dcm2niix is not installed: pip install 'xnatfs[demo]'")
    return found


@contextmanager
def _server(shell: _Shell, root: Path, case: Path | None) -> Iterator[str]:
    """The look-alike server in a process of its own; yields its URL."""
    words = ["xnatfs", "demo", "--serve", "--root", str(root)]
    if case is not None:
        words += ["--sample", "none", "--case", str(case)]
    shell.say(f"{shlex.join(words)} &")
    with subprocess.Popen(
        _real(tuple(words)),
        env=shell.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        # Ctrl-C is for us; the server is still needed for unmounting.
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            found = re.search(r"https?://\S+", first)
            if found is None:
                raise XnatfsError("demo: the look-alike server does not start")
            url = found[0].rstrip("/")
            print(f"  {url}", flush=True)
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_S)
            process.kill()


@contextmanager
def _mount(shell: _Shell, url: str, place: Path) -> Iterator[Path]:
    """The mount; after a failure it is taken away whatever it takes."""
    shell.run("xnatfs", "mount", url, str(place))
    try:
        yield place
        shell.run("xnatfs", "umount", str(place))
    finally:
        if mounts.mounted_at(place) is not None:
            with suppress(XnatfsError):
                mounts.unmount(place, lazy=True)


def load_case(url: str, case: Path) -> None:
    """Put a real session into a look-alike's archive, by plain REST; not a second time.

    Args:
        url: of the server.
        case: a folder with ``scans/N_TYPE/DICOM/*.dcm``.

    Raises: XnatfsError.
    """
    job, rest, scans = CASE, PlainRest(url, _USER, _USER), case_scans(case)
    with suppress(ServerFault):
        if rest.files(f"{job.session_path}/scans/{scans[-1][0]}/resources/DICOM"):
            return
    told = f"loading {count_text(len(scans), 'scan')} of {case} into the archive"
    print(told, file=sys.stderr, flush=True)
    rest.make(f"/projects/{job.project}")
    rest.make(f"/projects/{job.project}/subjects/{job.subject}")
    rest.make(job.session_path, "xsiType=xnat:mrSessionData")
    for number, kind, folder in scans:
        scan = f"{job.session_path}/scans/{number}"
        rest.make(scan, f"xsiType=xnat:mrScanData&xnat:mrScanData/type={_quoted(kind)}")
        rest.make(f"{scan}/resources/DICOM", "format=DICOM&content=RAW")
        rest.upload_folder(f"{scan}/resources/DICOM", folder)


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


def _convert(shell: _Shell, converter: str, place: Path, job: Job, results: Path) -> str:
    """The lines of the day: look, make the folder, convert, copy back.

    Returns: the dimensions that dcm2niix found in the series, "256 x 256 x 60".
    """
    resources = f"{place}{job.resources}"
    shell.run("ls", f"{place}{job.session_path}/scans")
    shell.run(
        "ls", f"{resources}/DICOM/files", shown=f"ls {resources}/DICOM/files | tail -3", tail=3
    )
    shell.run("mkdir", f"{resources}/NIFTI")
    report = shell.run(
        converter, "-f", "%s_%p", "-o", str(results), f"{resources}/DICOM/files",
        shown=f"dcm2niix -f %s_%p -o {results} {resources}/DICOM/files", tail=2,
    )  # fmt: skip
    found = re.search(r"\((\d+)x(\d+)x(\d+)x\d+\)", report)
    made = sorted(str(path) for path in results.iterdir())
    if found is None or not any(name.endswith(".nii") for name in made):
        raise XnatfsError("demo: dcm2niix made no volume")
    shell.run(
        "cp", *made, f"{resources}/NIFTI/files/",
        shown=f"cp {results}/* {resources}/NIFTI/files/",
    )  # fmt: skip
    return " x ".join(found.groups())


def _prove(shell: _Shell, rest: PlainRest, job: Job, results: Path) -> dict[str, str]:
    """Fetch every result from the server, not through the mount, and compare.

    Returns: file name → MD5, equal on both sides.
    """
    resource = f"{job.resources}/NIFTI"
    shell.say(f"curl -s -u {_USER}:{_USER} {rest.url}/data{resource}/files/NAME | md5sum")
    local = {
        path.name: md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        for path in sorted(results.iterdir())
    }
    there = set(rest.files(resource))
    if there != set(local):
        raise XnatfsError(
            f"demo: the server lists {', '.join(sorted(there)) or 'nothing'}, "
            f"we made {', '.join(local)}"
        )
    for name, digest in local.items():
        if rest.digest(resource, name) != digest:
            raise XnatfsError(f"demo: the server holds other bytes of {name}")
        print(f"  {digest}  {name}", flush=True)
    return local


def _summary(proved: dict[str, str], results: Path, scanned: str) -> None:
    print("\nIt works:")
    for name, digest in proved.items():
        path = results / name
        volume = _volume(dimensions(path), scanned) if name.endswith(".nii") else ""
        print(f"  {name}: {volume}{bytes_text(path.stat().st_size)}, MD5 {digest} on both sides")
    print("  unmounted; the server and its archive are gone")


def _volume(dims: str, scanned: str) -> str:
    """The volume's dimensions; dcm2niix turns a sagittal 3-D series into the axes of the head."""
    if not dims or dims == scanned:
        return f"{scanned}, "
    return f"{scanned} as scanned, {dims} in the axes of the head, "


def dimensions(path: Path) -> str:
    """``256 x 256 x 60`` from the header of a NIfTI-1 file; "" when it is none."""
    with open(path, "rb") as file:
        header = file.read(352)
    if len(header) < 348:
        return ""
    # sizeof_hdr tells the byte order; dim[] begins at byte 40 with the number of dimensions.
    order = "<" if header[:4] == struct.pack("<i", 348) else ">"
    count, *sizes = struct.unpack(f"{order}8h", header[40:56])
    if not 1 <= count <= 7:
        return ""
    return " x ".join(str(size) for size in sizes[:count])
