"""The spool: bytes, records, transitions, and what a crash at any moment leaves."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from xnatfs.config import SpoolSettings
from xnatfs.errors import Conflict, DiskFault, NoSpace, Protected
from xnatfs.model.versions import Version
from xnatfs.upload.record import Base, Kind, Record, State, Target, read_record, write_record
from xnatfs.upload.spool import Spool
from xnatfs.upload.upload import Upload

SERVER = "https://xnat.example.edu"


def target(path: str = "sub/a.nii") -> Target:
    return Target(
        SERVER,
        "ada",
        f"/projects/P/resources/NIFTI/files/{path}",
        "/projects/P/resources/7",
        "7",
        path,
    )


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(SpoolSettings(folder=tmp_path / "spool"), SERVER, "ada", "/mnt/xnat")
    spool.adopt()
    return spool


def content(upload: Upload) -> bytes:
    return upload.read(0, upload.size + 10)


def test_a_record_survives_its_json() -> None:
    record = Record(
        id="20261123-1-a",
        target=target("größe \udcff#.nii"),
        base=Base("ab" * 16, 12, "Mon, 01 Jan 2024 00:00:00 GMT"),
        created=12.5,
        state=State.FAILED,
        kind=Kind.FOLDER,
        size=12,
        md5="cd" * 16,
        attempts=3,
        last_error="no",
    )
    text = record.to_json()
    assert Record.from_json(text) == record
    assert json.loads(text)["version"] == 1
    grown = json.loads(text) | {"later": {"field": 1}}
    assert Record.from_json(json.dumps(grown)) == record


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"version": 2}', '{"version": 1}'])
def test_what_is_no_record_is_a_disk_fault(tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(DiskFault, match=r"record\.json"):
        read_record(tmp_path)


def test_folders_and_files_are_private_and_readable(spool: Spool) -> None:
    upload = spool.new(target("sub/größe a.nii"), None, None)
    upload.write(0, b"abc")
    upload.seal()
    for place in (spool.folder.parent, spool.folder, upload.folder):
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
    for name in ("bytes", "record.json"):
        assert stat.S_IMODE((upload.folder / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((spool.folder / "owner").stat().st_mode) == 0o600
    assert upload.folder.name.endswith("-gr_e_a.nii")
    assert (upload.folder / "bytes").read_bytes() == b"abc"
    on_disk = json.loads((upload.folder / "record.json").read_text())
    assert on_disk["state"] == "sealed"
    assert on_disk["md5"] == md5(b"abc")
    assert on_disk["base"] is None


def test_any_pattern_of_writes_has_the_right_md5(spool: Spool) -> None:
    rng = random.Random(4)
    for round_ in range(30):
        upload = spool.new(target(f"{round_}"), None, None)
        model = bytearray()
        for _ in range(rng.randrange(1, 12)):
            if rng.random() < 0.2:
                length = rng.randrange(0, 3000)
                upload.truncate(length)
                model = model[:length] + bytes(max(0, length - len(model)))
            else:
                offset = len(model) if rng.random() < 0.6 else rng.randrange(0, 3000)
                data = rng.randbytes(rng.randrange(0, 1000))
                assert upload.write(offset, data) == len(data)
                if data:
                    model += bytes(max(0, offset - len(model)))
                    model[offset : offset + len(data)] = data
        record = upload.seal()
        assert content(upload) == bytes(model)
        assert (record.size, record.md5) == (len(model), md5(bytes(model)))


def test_old_content_is_copied_up(spool: Spool) -> None:
    base = Version("7", "sub/a.nii", 6, md5(b"abcdef"))
    upload = spool.new(target(), base, iter([b"abc", b"def"]))
    upload.write(2, b"XY")
    assert content(upload) == b"abXYef"
    assert upload.seal().base == Base(md5(b"abcdef"), 6)


def test_a_failing_source_leaves_nothing(spool: Spool) -> None:
    def old():
        yield b"abc"
        raise DiskFault("broken")

    with pytest.raises(DiskFault, match="broken"):
        spool.new(target(), None, old())
    assert os.listdir(spool.folder) == ["owner"]
    assert spool.pending() == []


def test_the_states(spool: Spool) -> None:
    upload = spool.new(target(), None, None)
    assert upload.record.state is State.OPEN
    with pytest.raises(Protected):
        upload.resume()
    upload.write(0, b"one")
    assert upload.seal().state is State.SEALED
    with pytest.raises(RuntimeError):
        upload.write(0, b"x")
    upload.fail("the server said no")
    assert read_record(upload.folder).last_error == "the server said no"
    assert upload.record.attempts == 1
    assert upload.resume().state is State.SEALED
    upload.stored(Base(md5(b"one"), 3))
    upload.reopen()
    upload.write(3, b" two")
    # The server has taken "one": that is what the next version replaces.
    assert read_record(upload.folder).base == Base(md5(b"one"), 3)
    assert upload.seal().md5 == md5(b"one two")
    upload.conflict("another was faster")
    for change in (upload.seal, upload.reopen, upload.resume):
        with pytest.raises(Conflict, match="another was faster"):
            change()
    assert read_record(upload.folder).state is State.CONFLICT
    assert content(upload) == b"one two"
    upload.done()
    assert upload.gone
    assert not upload.folder.exists()
    assert content(upload) == b"one two"
    assert spool.pending() == []


def test_a_body_tells_when_it_is_read(spool: Spool) -> None:
    upload = spool.new(target(), None, [b"abcdef"])
    upload.seal()
    reads: list[int] = []
    with upload.open_body(lambda: reads.append(1)) as body:
        assert body.read(4) + body.read(4) + body.read(4) == b"abcdef"
    assert len(reads) == 3


def test_writers_and_readers_in_threads(spool: Spool) -> None:
    upload = spool.new(target(), None, None)

    def work(number: int) -> None:
        for row in range(50):
            upload.write((row * 4 + number) * 100, bytes([number + 1]) * 100)
            piece = upload.read(0, 1 << 20)
            assert set(piece) <= {0, 1, 2, 3, 4}

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = b"".join(bytes([number + 1]) * 100 for number in range(4)) * 50
    assert upload.seal().md5 == md5(wanted)
    assert content(upload) == wanted


def test_the_bound_of_the_spool(tmp_path: Path) -> None:
    spool = Spool(SpoolSettings(folder=tmp_path, size=1000), SERVER, "ada")
    spool.adopt()
    first = spool.new(target("a"), None, None)
    first.write(0, bytes(800))
    second = spool.new(target("b"), None, None)
    with pytest.raises(NoSpace, match="--spool-size"):
        second.write(0, bytes(300))
    assert second.size == 0
    assert spool.free().blocks_available * spool.free().block_size <= 200
    with pytest.raises(NoSpace):
        spool.new(target("c"), None, [bytes(150), bytes(150)])
    first.truncate(100)
    second.write(0, bytes(300))
    first.done()
    second.write(300, bytes(700))
    assert second.size == 1000


@pytest.fixture
def tiny_disk(tmp_path: Path):
    place = tmp_path / "tiny"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True
    )
    if made.returncode:
        pytest.skip("may not mount a tmpfs here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(upload: Upload, piece: int, words: str) -> int:
    """Write until there is no space, which ``words`` say; how many bytes went in."""
    written = 0
    with contextlib.suppress(NoSpace):
        while True:
            written += upload.write(written, bytes([written // piece % 256]) * piece)
    with pytest.raises(NoSpace, match=words):
        upload.write(written, bytes(piece))
    return written


def test_a_full_disk_is_said_and_loses_nothing(tiny_disk: Path) -> None:
    # The bound is larger than the disk, so the disk itself says no.
    spool = Spool(SpoolSettings(folder=tiny_disk, size=1 << 30), SERVER, "ada")
    spool.adopt()
    (tiny_disk / "filler").write_bytes(bytes(65536))
    upload = spool.new(target(), None, None)
    written = fill(upload, 65536, "no space on the local disk")
    assert written > 500_000
    assert upload.size == os.stat(upload.folder / "bytes").st_size
    upload.fail("no space")
    assert upload.record.state is State.FAILED
    assert read_record(upload.folder).state in (State.OPEN, State.FAILED)
    assert all(upload.read(at, 1) == bytes([at // 65536]) for at in range(0, written, 65536))
    with pytest.raises(NoSpace):
        spool.new(target("b"), None, [bytes(65536)] * 20)
    assert len(list(spool.folder.iterdir())) == 2  # owner, and the first upload
    # Room again: it is finished after all.
    (tiny_disk / "filler").unlink()
    upload.reopen()
    upload.truncate(1000)
    assert upload.seal().size == 1000


def test_by_default_five_percent_of_the_disk_stay_free(tiny_disk: Path) -> None:
    spool = Spool(SpoolSettings(folder=tiny_disk), SERVER, "ada")
    spool.adopt()
    upload = spool.new(target(), None, None)
    written = fill(upload, 4096, "leaves free")
    disk = os.statvfs(tiny_disk)
    assert 0.03 < disk.f_bavail / disk.f_blocks < 0.10
    # Records can still be written.
    assert upload.seal().size == written


def test_a_clean_end(spool: Spool) -> None:
    spool.new(target("a"), None, [b"a"]).done()
    spool.release()
    assert not spool.folder.exists()


def test_a_clean_end_with_something_left(spool: Spool) -> None:
    left = spool.new(target("a"), None, [b"a"])
    left.seal()
    spool.release()
    assert (spool.folder / "released").exists()
    assert read_record(left.folder).state is State.SEALED


def test_a_spool_that_vanished_is_an_error_and_no_crash(spool: Spool) -> None:
    upload = spool.new(target("a"), None, [b"a"])
    shutil.rmtree(spool.folder)
    upload.fail("a reason")
    assert upload.record.last_error == "a reason"
    upload.done()
    spool.release()


def test_a_spool_that_was_cleaned_away_is_made_again(spool: Spool) -> None:
    open_ = spool.new(target("a"), None, [b"content"])
    shutil.rmtree(spool.folder)
    # Its bytes are there as long as it is open, whatever becomes of their name.
    assert open_.seal().md5 == md5(b"content")
    assert not open_.kept
    with open_.open_body() as body:
        assert body.read() == b"content"
    sealed = spool.new(target("b"), None, [b"b"])
    sealed.seal()
    assert sealed.kept
    assert read_record(sealed.folder).state is State.SEALED
    sealed.done()
    open_.done()
    assert spool.pending() == []


def test_the_bound_counts_what_others_left(tmp_path: Path) -> None:
    settings = SpoolSettings(folder=tmp_path, size=1000)
    first = Spool(settings, SERVER, "ada")
    first.adopt()
    first.new(target("a"), None, [bytes(700)]).seal()
    second = Spool(settings, SERVER, "ada")
    second.adopt()
    with pytest.raises(NoSpace, match="holds 700 bytes"):
        second.new(target("b"), None, [bytes(400)])
    second.new(target("b"), None, [bytes(300)]).seal()
    assert second.free().blocks_available == 0


def test_a_full_disk_does_not_keep_what_was_written_from_being_sent(tiny_disk: Path) -> None:
    spool = Spool(SpoolSettings(folder=tiny_disk, size=1 << 30), SERVER, "ada")
    spool.adopt()
    upload = spool.new(target(), None, [b"whole"])
    filler = tiny_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as out:
        while True:
            out.write(bytes(4096))
    assert upload.seal().state is State.SEALED
    assert not upload.kept
    assert upload.resume().md5 == md5(b"whole")
    with upload.open_body() as body:
        assert body.read() == b"whole"
    assert read_record(upload.folder).state is State.OPEN
    filler.unlink()
    # The next change of the record finds room.
    upload.trouble("the server is away")
    assert upload.kept
    assert read_record(upload.folder).md5 == md5(b"whole")


CHILD = """
import sys, random
from pathlib import Path
from xnatfs.config import SpoolSettings
from xnatfs.upload.record import Base, Target
from xnatfs.upload.spool import Spool
spool = Spool(SpoolSettings(folder=Path(sys.argv[1])), "https://x", "ada")
spool.adopt()
print("ready", flush=True)
number = 0
while True:
    number += 1
    path = f"f{number}"
    upload = spool.new(Target("https://x", "ada", "/l/" + path, "/r/7", "7", path), None, [b"o"])
    upload.write(0, path.encode() * 1000)
    if number % 3 == 0: upload.fsync()
    upload.seal()
    print("sealed", path, flush=True)
    if number % 2: upload.fail("why"); upload.resume()
    if number % 5 == 0:
        print("removing", path, flush=True)
        upload.done()
"""


def test_kill_9_at_random_moments_leaves_whole_records(tmp_path: Path) -> None:
    rng = random.Random(9)
    for round_ in range(5):
        root = tmp_path / str(round_)
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(root)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        for _ in range(rng.randrange(3, 60)):
            child.stdout.readline()
        threading.Event().wait(rng.random() / 200)
        child.send_signal(signal.SIGKILL)
        said = child.stdout.read().rpartition("\n")[0].splitlines()
        child.wait()
        child.stdout.close()
        (folder,) = [entry for entry in root.iterdir() if entry.name[0] != "."]
        found = {}
        for entry in folder.iterdir():
            if entry.name == "owner" or entry.name.startswith("."):
                continue
            record = read_record(entry)  # whole, always
            data = (entry / "bytes").read_bytes()
            if record.state is not State.OPEN:
                assert (record.size, record.md5) == (len(data), md5(data))
                assert data == record.target.path.encode() * 1000
            found[record.target.path] = record.state
        removed = {line.split()[1] for line in said if line.startswith("removing")}
        for line in said:
            if line.startswith("sealed") and (path := line.split()[1]) not in removed:
                assert found[path] is not State.OPEN


def test_a_record_is_old_or_new_whatever_happens(tmp_path: Path) -> None:
    folder = tmp_path / "u"
    folder.mkdir()
    record = Record("u", target(), None, 1.0)
    write_record(folder, record, durable=True)
    (folder / "record.json.new").write_text('{"version": 1, "half')
    assert read_record(folder) == record
    write_record(folder, record.replaced(state=State.SEALED), durable=False)
    assert read_record(folder).state is State.SEALED
