"""The uploader against a look-alike server that fails in every way it knows."""

from __future__ import annotations

import base64
import hashlib
import logging
import threading
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from xnatfs.config import Limits, ServerSettings, SpoolSettings
from xnatfs.demo.faults import Fault
from xnatfs.demo.server import DemoServer, ServerOptions
from xnatfs.errors import (
    AlreadyExists,
    Conflict,
    Interrupted,
    NotFound,
    NotPermitted,
    QuotaExceeded,
    ServerBusy,
    ServerFault,
    XnatfsError,
)
from xnatfs.model.entities import Item, RemoteFile
from xnatfs.model.versions import Version
from xnatfs.rest.archive import Archive
from xnatfs.rest.login import Credentials
from xnatfs.rest.session import Session
from xnatfs.rest.transfer import Transfer
from xnatfs.upload.queue import Queue
from xnatfs.upload.receipts import Receipts
from xnatfs.upload.record import State, Target, read_record
from xnatfs.upload.spool import Spool
from xnatfs.upload.upload import Upload
from xnatfs.upload.uploader import Uploader
from xnatfs.waiting import Waiter


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


class Bench:
    """One user with a spool at one server, and a look at the server past the client."""

    def __init__(self, server: DemoServer, folder: Path, user: str = "member") -> None:
        self.server = server
        self.folder = folder
        settings = ServerSettings(url=server.url, shared_session=False)
        limits = Limits(io_timeout_s=20.0)
        self.session = Session(settings, limits, Credentials(user, user, "the test"), folder)
        self.session.open(self.waiter())
        self.archive = Archive(self.session, "a test")
        self.transfer = Transfer(self.session, "a test")
        self.receipts = Receipts(folder, server.url, user)
        self.spool = Spool(SpoolSettings(folder=folder / "spool"), server.url, user)
        self.spool.adopt()
        self.listings: list[tuple[Item, list[RemoteFile]]] = []
        self.uploader = Uploader(
            self.archive,
            self.transfer,
            self.receipts,
            limits,
            lambda resource, rows: self.listings.append((resource, rows)),
            lambda _resource, _row: None,
        )
        experiments = self.archive.experiments(self.waiter())
        first = next(item for item in experiments if item.label == "Haofei01_MR1")
        self.resources = {item.label: item for item in self.archive.resources(first, self.waiter())}
        self.resource = self.resources["EMPTY"]

    def waiter(self, idle_s: float = 20.0) -> Waiter:
        return Waiter(idle_s=idle_s)

    def upload(
        self,
        path: str,
        data: bytes,
        base: Version | None = None,
        resource: Item | None = None,
    ) -> Upload:
        resource = resource or self.resource
        where = Target(
            self.server.url,
            self.session.user,
            f"/projects/PVT000/x/files/{path}",
            resource.address,
            resource.id,
            path,
        )
        upload = self.spool.new(where, base, None)
        upload.write(0, data)
        upload.seal()
        return upload

    def send(self, upload: Upload, idle_s: float = 20.0) -> RemoteFile:
        resource = upload.record.target.item()
        return self.uploader.send(upload, resource, self.waiter(idle_s))

    def listed(self, path: str, resource: Item | None = None) -> RemoteFile | None:
        rows = self.archive.files(resource or self.resource, self.waiter())
        return next((row for row in rows if row.path == path), None)

    def place(self, path: str) -> Path:
        """Where the server has the file on its disk."""
        site = self.server.site
        (resource,) = [it for it in site.tables.resources.all() if it.id == self.resource.id]
        return site.archive.file(resource, path)

    def curl(self, verb: str, path: str, data: bytes | None = None, query: str = "") -> bytes:
        """What another client of another user does."""
        request = urllib.request.Request(
            f"{self.server.url}/data{self.resource.address}/files/{quote(path)}{query}",
            data,
            {
                "Authorization": "Basic " + base64.b64encode(b"admin:admin").decode(),
                "Content-Type": "application/octet-stream",
                "User-Agent": "curl/8",
            },
            method=verb,
        )
        with urllib.request.urlopen(request) as reply:
            return reply.read()

    def puts(self) -> int:
        return sum(entry.verb in ("PUT", "POST") for entry in self.server.log)

    def asked(self, verb: str, ending: str) -> int:
        return sum(
            entry.verb == verb and entry.path.partition("?")[0].endswith(ending)
            for entry in self.server.log
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("site")
    server = DemoServer(ServerOptions(root=root, sample="small"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bench(site: DemoServer, tmp_path: Path, request: pytest.FixtureRequest):
    site.faults.clear()
    bench = Bench(site, tmp_path)
    yield bench
    site.faults.clear()
    for row in bench.archive.files(bench.resource, bench.waiter()):
        if (place := bench.place(row.path)).exists():
            bench.curl("DELETE", row.path)
            assert not place.exists()


def test_a_new_file_arrives_and_is_gone_from_the_spool(bench: Bench) -> None:
    upload = bench.upload("sub/a.nii", b"abc" * 1000)
    stored = bench.send(upload)
    assert (stored.path, stored.size, stored.digest) == ("sub/a.nii", 3000, md5(b"abc" * 1000))
    assert bench.curl("GET", "sub/a.nii") == b"abc" * 1000
    assert upload.gone
    assert bench.spool.pending() == []
    assert bench.receipts.holds(bench.resource.id, "sub/a.nii", md5(b"abc" * 1000), 3000)
    assert bench.listings[-1][0] == bench.resource
    assert upload.read(0, 3) == b"abc"


def test_an_empty_file(bench: Bench) -> None:
    assert bench.send(bench.upload("empty", b"")).size == 0
    assert bench.curl("GET", "empty") == b""


def test_the_second_file_in_two_seconds_costs_a_head(bench: Bench) -> None:
    bench.send(bench.upload("a", b"a"))
    bench.server.clear_log()
    uploads = [bench.upload(f"b{number}", b"b") for number in range(3)]
    for upload in uploads:
        assert bench.send(upload).digest == md5(b"b")
    assert bench.asked("HEAD", "/files/b0") == 1
    assert bench.asked("GET", "/files") == 0
    assert bench.uploader.owed() == 3
    assert bench.uploader.owed_ids() == {upload.record.id for upload in uploads}
    assert not any(upload.gone for upload in uploads)
    bench.uploader.settle(bench.waiter())
    assert bench.asked("GET", "/files") == 1
    assert bench.uploader.owed() == 0
    assert all(upload.gone for upload in uploads)


def test_somebody_elses_file_is_never_overwritten(bench: Bench) -> None:
    bench.curl("PUT", "theirs", b"theirs")
    upload = bench.upload("theirs", b"ours")
    with pytest.raises(AlreadyExists):
        bench.send(upload)
    assert bench.curl("GET", "theirs") == b"theirs"
    assert read_record(upload.folder).state is State.CONFLICT
    with pytest.raises(Conflict):
        bench.send(upload)


def test_a_base_is_replaced_only_while_it_stands(bench: Bench) -> None:
    bench.send(bench.upload("f", b"one"))
    base = Version(bench.resource.id, "f", 3, md5(b"one"))
    bench.send(bench.upload("f", b"two!", base))
    assert bench.curl("GET", "f") == b"two!"
    late = bench.upload("f", b"three", base)
    with pytest.raises(Conflict, match="changed it"):
        bench.send(late)
    assert bench.curl("GET", "f") == b"two!"
    assert late.record.state is State.CONFLICT
    bench.curl("DELETE", "f")
    with pytest.raises(Conflict, match="removed"):
        bench.send(bench.upload("f", b"four", Version(bench.resource.id, "f", 4, md5(b"two!"))))


def test_written_again_after_it_arrived(bench: Bench) -> None:
    bench.send(bench.upload("other", b"x"))
    upload = bench.upload("f", b"one")
    bench.send(upload)
    assert not upload.gone
    upload.reopen()
    upload.write(3, b" two")
    upload.seal()
    bench.send(upload)
    assert bench.curl("GET", "f") == b"one two"
    bench.uploader.settle(bench.waiter())
    assert upload.gone


@pytest.mark.parametrize(
    ("fault", "puts"),
    [
        (Fault(kind="status", verb="PUT", code=500, count=1), 2),
        (Fault(kind="status", verb="PUT", code=503, count=3, retry_after="0"), 4),
        (Fault(kind="status_after", verb="PUT", code=500, count=1), 1),
        (Fault(kind="status_after", verb="PUT", code=504, count=1), 1),
        (Fault(kind="html", verb="PUT", count=1), 2),
        (Fault(kind="reset", verb="PUT", count=2), 3),
        (Fault(kind="reset_after", verb="PUT", count=1, bytes=100), 2),
        (Fault(kind="expire", verb="PUT", count=1), 1),
        (Fault(kind="status", verb="HEAD", code=502, count=1), 1),
        (Fault(kind="reset", path="files", verb="GET", count=1), 1),
        (Fault(kind="html", path="files", verb="GET", count=1), 1),
    ],
    ids=lambda value: f"{value.kind}-{value.verb}-{value.code}" if isinstance(value, Fault) else "",
)
def test_it_arrives_in_spite_of(bench: Bench, fault: Fault, puts: int) -> None:
    data = b"0123456789" * 50_000
    for path in ("a", "b"):  # verified by listing, and by HEAD
        bench.server.faults.clear()
        bench.server.faults.add(fault)
        bench.server.clear_log()
        upload = bench.upload(path, data)
        assert bench.send(upload).digest == md5(data)
        bench.server.faults.clear()
        assert bench.puts() == puts
        assert bench.curl("GET", path) == data
    bench.uploader.settle(bench.waiter())
    assert bench.uploader.owed() == 0
    assert bench.spool.pending() == []


def test_overwriting_survives_an_answer_that_was_lost(bench: Bench) -> None:
    bench.send(bench.upload("f", b"one"))
    for number, code in enumerate((500, 504)):
        now = bench.curl("GET", "f")
        bench.server.faults.add(Fault(kind="status_after", verb="PUT", code=code, count=1))
        base = Version(bench.resource.id, "f", len(now), md5(now))
        bench.send(bench.upload("f", b"version %d" % number, base))
        bench.server.faults.clear()
        assert bench.curl("GET", "f") == b"version %d" % number


@pytest.mark.parametrize(
    ("code", "error"), [(413, QuotaExceeded), (404, NotFound), (403, NotPermitted)]
)
def test_a_refusal_is_not_repeated(bench: Bench, code: int, error: type[XnatfsError]) -> None:
    bench.server.faults.add(Fault(kind="status", verb="PUT", code=code))
    bench.server.clear_log()
    upload = bench.upload("f", b"abc")
    with pytest.raises(error):
        bench.send(upload)
    assert bench.puts() == 1
    record = read_record(upload.folder)
    assert (record.state, record.attempts) == (State.FAILED, 1)
    assert str(code) in record.last_error or "may not write" in record.last_error
    assert upload.read(0, 10) == b"abc"


def test_a_server_that_always_fails_is_given_up(bench: Bench) -> None:
    bench.server.faults.add(Fault(kind="status", verb="PUT", code=500))
    upload = bench.upload("f", b"abc")
    with pytest.raises(ServerFault):
        bench.send(upload)
    assert upload.record.state is State.FAILED
    bench.server.faults.clear()
    bench.send(upload)
    bench.uploader.settle(bench.waiter())
    assert upload.gone
    assert bench.curl("GET", "f") == b"abc"


def test_a_server_that_stays_away_ends_with_its_reason(bench: Bench) -> None:
    bench.server.faults.add(Fault(kind="status", verb="PUT", code=503))
    upload = bench.upload("f", b"abc")
    with pytest.raises(ServerBusy, match="503"):
        bench.send(upload, idle_s=0.5)
    assert upload.record.state is State.FAILED


def test_a_leftover_that_no_listing_shows_is_replaced(bench: Bench) -> None:
    place = bench.place("orphan")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"half a fi")
    bench.send(bench.upload("orphan", b"half a file"))
    assert bench.curl("GET", "orphan") == b"half a file"


def test_a_reader_is_told(site: DemoServer, tmp_path: Path) -> None:
    reader = Bench(site, tmp_path, "reader")
    for path in ("a", "b"):
        upload = reader.upload(path, b"abc")
        with pytest.raises(NotPermitted, match=r'stored nothing \(user "reader"'):
            reader.send(upload)
        assert reader.listed(path) is None
        assert upload.record.state is State.FAILED


def test_a_reader_is_told_when_overwriting(bench: Bench, tmp_path: Path) -> None:
    bench.send(bench.upload("f", b"one"))
    reader = Bench(bench.server, tmp_path / "reader", "reader")
    base = Version(bench.resource.id, "f", 3, md5(b"one"))
    for data in (b"two", b"one and more"):  # of the same size; its beginning
        with pytest.raises(NotPermitted, match="stored nothing"):
            reader.send(reader.upload("f", data, base))
    assert bench.curl("GET", "f") == b"one"


def test_a_cut_upload_is_sent_again(bench: Bench) -> None:
    bench.send(bench.upload("first", b"x"))
    upload = bench.upload("f", b"0123456789")
    bench.send(upload)
    # Stored, and then damaged in catalog and on disk alike: an upload that a proxy has cut.
    bench.curl("PUT", "f", b"01234", "?overwrite=true")
    assert bench.uploader.owed() == 1
    bench.uploader.settle(bench.waiter())
    assert bench.uploader.owed() == 0
    assert upload.gone
    assert bench.curl("GET", "f") == b"0123456789"


def test_changed_by_somebody_else_before_its_md5_was_seen(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.send(bench.upload("first", b"x"))
    upload = bench.upload("f", b"0123456789")
    bench.send(upload)
    bench.curl("PUT", "f", b"their words", "?overwrite=true")
    bench.uploader.settle(bench.waiter())
    assert bench.curl("GET", "f") == b"their words"
    assert upload.record.state is State.CONFLICT
    assert upload.read(0, 20) == b"0123456789"
    assert bench.uploader.owed() == 0
    assert [it.levelno for it in caplog.records if "did not arrive" in it.message] == [
        logging.ERROR
    ]


def test_removed_by_somebody_else_before_its_md5_was_seen(bench: Bench) -> None:
    bench.send(bench.upload("first", b"x"))
    upload = bench.upload("f", b"0123456789")
    bench.send(upload)
    bench.curl("DELETE", "f")
    # Found out by the next file's listing, and no trouble of that file.
    bench.uploader._listed.clear()
    bench.send(bench.upload("next", b"y"))
    assert upload.record.state is State.CONFLICT


def test_a_site_without_checksums(tmp_path: Path) -> None:
    server = DemoServer(ServerOptions(root=tmp_path / "site", sample="small", checksums=False))
    server.start()
    try:
        bench = Bench(server, tmp_path)
        stored = bench.send(bench.upload("f", b"abc"))
        assert (stored.size, stored.digest) == (3, "")
        head = bench.archive.head(bench.resource, "f", bench.waiter())
        assert bench.receipts.holds(bench.resource.id, "f", "", 3, head.modified)
        # Without a digest, the answer that was lost is found by the bytes.
        server.faults.add(Fault(kind="status_after", verb="PUT", code=504, count=1))
        bench.send(bench.upload("g", b"lost"))
        # And a digest that an overwrite has left stale is distrusted.
        bench.send(bench.upload("f", b"xyz", Version(bench.resource.id, "f", 3, "", head.modified)))
        assert bench.curl("GET", "f") == b"xyz"
        bench.uploader.settle(bench.waiter())
        assert bench.spool.pending() == []
    finally:
        server.stop()


def test_one_at_a_time_per_resource_and_several_resources(bench: Bench) -> None:
    """With another client in the same resource: catalog conflicts are survived."""
    other = bench.resources["QC"]
    failures: list[Exception] = []

    def ours(resource: Item, name: str) -> None:
        try:
            for number in range(5):
                bench.send(bench.upload(f"{name}/{number}", name.encode() * 100, None, resource))
        except XnatfsError as error:
            failures.append(error)

    def theirs() -> None:
        for number in range(20):
            try:
                bench.curl("PUT", f"theirs/{number}", b"t", "?overwrite=true")
            except urllib.error.HTTPError as error:
                if error.code != 500:
                    failures.append(error)

    threads = [
        threading.Thread(target=ours, args=(resource, f"{name}{where}"))
        for where, resource in (("e", bench.resource), ("q", other))
        for name in ("x", "y")
    ]
    threads.append(threading.Thread(target=theirs))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for where, resource in (("e", bench.resource), ("q", other)):
        for name in ("x", "y"):
            for number in range(5):
                row = bench.listed(f"{name}{where}/{number}", resource)
                assert row is not None
                assert row.digest == md5((name + where).encode() * 100)


def test_waiting_behind_work_that_moves_and_being_interrupted(bench: Bench) -> None:
    begun, go = threading.Event(), threading.Event()

    def hold() -> None:
        with bench.uploader.turn(bench.resource.id, bench.waiter()):
            begun.set()
            go.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    begun.wait(10)
    upload = bench.upload("f", b"abc")
    with pytest.raises(Interrupted):
        bench.uploader.send(upload, bench.resource, Waiter(interrupted=lambda: True))
    assert upload.record.state is State.SEALED
    assert "interrupted" in upload.record.last_error
    go.set()
    holder.join()
    bench.send(upload)
    assert bench.curl("GET", "f") == b"abc"


def test_what_a_dead_process_had_sent_already_is_not_sent_again(bench: Bench) -> None:
    upload = bench.upload("f", b"abc")
    bench.server.faults.add(Fault(kind="status_after", verb="PUT", code=504))
    # The answer is lost and so is the look at what became of it.
    bench.server.faults.add(Fault(kind="status", verb="GET", path="files", code=503))
    with pytest.raises(XnatfsError):
        bench.send(upload, idle_s=0.5)
    bench.server.faults.clear()
    bench.spool.release()
    queue = Queue(SpoolSettings(folder=bench.folder / "spool"))
    (row,) = queue.rows()
    next_one = Spool(SpoolSettings(folder=bench.folder / "spool"), bench.server.url, "member")
    next_one.adopt()
    assert next_one.folder != bench.spool.folder
    taken = queue.take(row, next_one)
    assert taken is not None
    bench.server.clear_log()
    bench.send(taken)
    assert bench.puts() == 0
    assert taken.gone
    assert bench.curl("GET", "f") == b"abc"


def test_a_look_that_comes_too_early_proves_nothing(bench: Bench) -> None:
    """After some uploads the look is sent while the upload is answered; then one takes long."""
    for number in range(6):
        bench.send(bench.upload(f"f{number}", b"small"))
    bench.server.faults.add(Fault(kind="delay", verb="PUT", seconds=0.4, count=1))
    bench.server.clear_log()
    assert bench.send(bench.upload("late", b"late")).size == 4
    assert bench.asked("HEAD", "/files/late") == 2
    assert bench.curl("GET", "late") == b"late"
    project = bench.server.site.tables.objects.get("project:PVT000")
    roles = (("admin", "owner"), ("member", "collaborator"))
    bench.server.site.tables.objects.put(replace(project, roles=roles))
    try:
        with pytest.raises(NotPermitted, match="stored nothing"):
            bench.send(bench.upload("silent", b"silent"))
    finally:
        bench.server.site.tables.objects.put(project)
