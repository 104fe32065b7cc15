"""The tar reader: what the standard library writes comes out whole, however it is cut."""

from __future__ import annotations

import io
import random
import tarfile

import pytest

from xnatfs.download.tar import Entry, Tar
from xnatfs.errors import BadReply, TransferBroken

CONTENT = {
    "S_MR1/scans/4-T1/resources/DICOM/files/1.dcm": b"one" * 1000,
    "S_MR1/scans/4-T1/resources/DICOM/files/empty": b"",
    "S_MR1/scans/4-T1/resources/DICOM/files/exactly": bytes(range(256)) * 4,
    "S_MR1/" + "n" * 120 + "/files/" + "m" * 130: b"long names\n",
    "S_MR1/files/größe.nii": b"umlauts\n",
    "S_MR1/files/" + "f" * 90 + "/" + "g" * 90 + "/h": b"a prefix will do\n",
}


def archive(form: int, content: dict[str, bytes] = CONTENT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as packed:
        folder = tarfile.TarInfo("S_MR1")
        folder.type = tarfile.DIRTYPE
        packed.addfile(folder)
        link = tarfile.TarInfo("S_MR1/link")
        link.type, link.linkname = tarfile.SYMTYPE, "elsewhere"
        packed.addfile(link)
        for name, body in content.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(body), 1_617_910_125
            packed.addfile(info, io.BytesIO(body))
    return out.getvalue()


def unpacked(raw: bytes, cut: int | None = None, skip: str = "") -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    seen: list[Entry] = []

    def choose(entry: Entry):  # type: ignore[no-untyped-def]
        seen.append(entry)
        if entry.name == skip:
            return None
        return lambda body: found.__setitem__(entry.name, bytes(body))

    reader = Tar(choose, "P/files")
    rest, dice = raw, random.Random(1)
    while rest:
        step = cut or dice.choice([1, 7, 511, 512, 513, 5000])
        reader.feed(rest[:step])
        rest = rest[step:]
    reader.finish()
    assert {entry.mtime for entry in seen} == {1_617_910_125}
    assert all(entry.name == skip or len(found[entry.name]) == entry.size for entry in seen)
    return found


@pytest.mark.parametrize("cut", [None, 1, 512, 700, 1 << 20])
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_everything_comes_out_whole(form: int, cut: int | None) -> None:
    assert unpacked(archive(form), cut) == CONTENT


def test_the_oldest_posix_format() -> None:
    content = {name: body for name, body in CONTENT.items() if "m" * 130 not in name}
    assert unpacked(archive(tarfile.USTAR_FORMAT, content)) == content


def test_what_nobody_takes_is_skipped() -> None:
    first = next(iter(CONTENT))
    found = unpacked(archive(tarfile.PAX_FORMAT), skip=first)
    assert found == {name: body for name, body in CONTENT.items() if name != first}


def test_a_size_of_more_than_eight_gigabytes() -> None:
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        info = tarfile.TarInfo("S/files/huge")
        info.size = 9 << 30
        sizes: list[int] = []
        reader = Tar(lambda entry, sizes=sizes: sizes.append(entry.size), "P/files")  # type: ignore[misc]
        reader.feed(info.tobuf(form))
        assert sizes == [9 << 30]


def test_bytes_after_the_end_do_not_count() -> None:
    assert unpacked(archive(tarfile.GNU_FORMAT) + b"\1" * 5000) == CONTENT


@pytest.mark.parametrize("length", [0, 511, 512, 1024, 3000, 5000])
def test_an_archive_that_ends_early_is_broken(length: int) -> None:
    reader = Tar(lambda entry: None, "P/files")
    reader.feed(archive(tarfile.GNU_FORMAT)[:length])
    with pytest.raises(TransferBroken):
        reader.finish()


@pytest.mark.parametrize("at", [0, 130, 150, 156, 345])
def test_a_damaged_header_breaks_the_stream(at: int) -> None:
    raw = bytearray(archive(tarfile.USTAR_FORMAT, {"S/files/a": b"a"}))
    raw[at] ^= 0xFF
    with pytest.raises(TransferBroken):
        Tar(lambda entry: None, "P/files").feed(bytes(raw))


def test_a_description_without_end_is_refused() -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    with pytest.raises(BadReply):
        Tar(lambda entry: None, "P/files").feed(info.tobuf(tarfile.GNU_FORMAT))


def test_a_damaged_description_breaks_the_stream() -> None:
    raw = archive(tarfile.PAX_FORMAT, {"S/files/" + "n" * 300: b"a"})
    at = raw.index(b" path=")
    with pytest.raises(TransferBroken):
        Tar(lambda entry: None, "P/files").feed(raw[: at - 1] + b"x" + raw[at:])
