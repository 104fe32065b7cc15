"""What a mount that died has left: exactly what was closed last, under its name, once."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path

import pytest

from tests.core.driver import SCAN4, Driver, Rest, soon
from tests.mount.desk import HELD, Desk, gone, within
from xnatfs.config import SpoolSettings
from xnatfs.demo.server import DemoServer
from xnatfs.model.versions import Version
from xnatfs.upload.owner import OWNER_NAME
from xnatfs.upload.queue import Queue
from xnatfs.upload.record import Target
from xnatfs.upload.spool import Spool

NIFTI = SCAN4 + "/resources/NIFTI"
SCAN_HELD = f"{HELD}/scans/4/resources/NIFTI"


@pytest.mark.parametrize("how", ["append", "truncate"])
def test_what_was_closed_counts_until_it_is_closed_anew(
    desk: Desk, server: DemoServer, how: str
) -> None:
    """Write-back: what is being written over a file that waits does not harm what was closed."""
    desk.mount("--write-back")
    desk.works("mkdir resources/OVER; printf first > resources/OVER/files/a")
    flags = os.O_APPEND if how == "append" else os.O_TRUNC
    path = desk.session / "resources/OVER/files/a"
    descriptor = os.open(path, os.O_WRONLY | flags)
    os.write(descriptor, b" and half of the sec")
    os.fsync(descriptor)
    pid = desk.pid()
    os.kill(pid, signal.SIGKILL)
    assert gone(pid, 10)
    with pytest.raises(OSError, match=r"not connected|connection abort"):
        os.close(descriptor)
    done = desk.xnatfs("mount", server.url, desk.point)
    assert done.returncode == 0
    assert path.read_bytes() == b"first"
    assert within(20, lambda: Rest(server).files(f"{HELD}/resources/OVER") == {"a": b"first"})
    assert desk.umount().returncode == 0
    (row,) = json.loads(desk.xnatfs("uploads", "list", "--format", "json").stdout)
    assert row["state"] == "open"
    assert int(row["size"]) == (25 if how == "append" else 20)


def test_of_two_for_one_name_the_later_counts(connect, server: DemoServer, tmp_path: Path) -> None:
    """The first was taken, which was not proven yet; the second was written over it."""
    drive = Driver(connect("admin"))
    drive.mkdir(NIFTI)
    drive.write(NIFTI + "/files/a", b"one")
    (item,) = [
        row for row in Rest(server).rows(f"/data{HELD}/scans/4/resources?format=json")
        if row["label"] == "NIFTI"
    ]  # fmt: skip
    number = str(item["xnat_abstractresource_id"])
    settings = SpoolSettings(folder=tmp_path / "state" / "spool")
    dead = Spool(settings, server.url, "admin")
    dead.adopt()
    target = Target(
        server=server.url,
        account="admin",
        labels=f"{NIFTI}/files/a",
        resource=f"{HELD}/scans/4/resources/{number}",
        resource_id=number,
        path="a",
    )
    digest = hashlib.md5(b"one").hexdigest()
    dead.new(target, None, [b"one"]).seal()
    dead.new(target, Version(number, "a", 3, digest), [b"the second"]).seal()
    # A process of before: pids come again.
    owner = dead.folder / OWNER_NAME
    owner.write_text(json.dumps(json.loads(owner.read_text()) | {"start": 1}))
    drive.fs.refresh("/", soon())
    drive.fs.recover()
    assert drive.read(NIFTI + "/files/a") == b"the second"
    drive.fs.drain(soon())
    assert Rest(server).files(SCAN_HELD) == {"a": b"the second"}
    assert Queue(settings).rows() == []
