"""The archive over loopback: listings, rights, folders, transfers and exact deletes."""

import hashlib
import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from xnatfs.config import Limits, ServerSettings
from xnatfs.demo.faults import Fault
from xnatfs.demo.server import DemoServer, LogEntry, ServerOptions
from xnatfs.errors import (
    AlreadyExists,
    BadName,
    BadReply,
    NotFound,
    NotPermitted,
    QuotaExceeded,
    ServerFault,
    Stale,
    TimedOut,
    TransferBroken,
)
from xnatfs.model.entities import Item
from xnatfs.model.levels import (
    ASSESSOR,
    EXPERIMENT,
    PROJECT,
    RECONSTRUCTION,
    SCAN,
    SUBJECT,
)
from xnatfs.rest.archive import Archive
from xnatfs.rest.login import Credentials
from xnatfs.rest.session import Session
from xnatfs.rest.transfer import Sent, Transfer
from xnatfs.waiting import Waiter


class Client:
    """One user's archive and transfers."""

    def __init__(self, server: DemoServer, user: str, state: Path) -> None:
        self.server = server
        self.session = Session(
            ServerSettings(url=server.url),
            Limits(io_timeout_s=5),
            Credentials(user, user, "the test"),
            state,
        )
        self.session.open(wait())
        self.archive = Archive(self.session, "testing")
        self.transfer = Transfer(self.session, "testing")

    def one(self, level_items: list[Item], label: str) -> Item:
        (item,) = [item for item in level_items if item.label == label]
        return item

    def project(self, name: str = "PVT000") -> Item:
        return self.one(self.archive.items(PROJECT, None, wait()), name)

    def experiment(self, label: str = "Haofei01_MR1") -> Item:
        return self.one(self.archive.items(EXPERIMENT, self.project(), wait()), label)

    def resource(self, label: str, parent: Item | None = None) -> Item:
        found = self.archive.resources(parent or self.experiment(), wait())
        return next(item for item in found if item.label == label)

    def paths(self, resource: Item) -> list[str]:
        return [row.path for row in self.archive.files(resource, wait())]

    def new_resource(self, label: str) -> Item:
        parent = self.experiment("Haofei01_MR2")
        self.archive.create_resource(parent, label, wait())
        return self.resource(label, parent)

    def put(self, resource: Item, path: str, content: bytes, *, overwrite: bool = False) -> Sent:
        return self.transfer.send(
            resource,
            path,
            lambda: io.BytesIO(content),
            len(content),
            wait(),
            overwrite=overwrite,
        )

    def get(self, resource: Item, path: str) -> bytes:
        pieces: list[bytes] = []
        self.transfer.fetch(resource, path, pieces.append, wait())
        return b"".join(pieces)


def wait() -> Waiter:
    return Waiter(total_s=20, idle_s=10)


def logged(server: DemoServer) -> list[LogEntry]:
    """The server's log once it is quiet: a request is noted after its reply has left."""
    count = -1
    while count != len(server.log):
        count = len(server.log)
        time.sleep(0.05)
    return list(server.log)


def forget(server: DemoServer) -> None:
    logged(server)
    server.clear_log()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    root = tmp_path_factory.mktemp("archive")
    server = DemoServer(ServerOptions(root=root, sample="small"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def admin(server: DemoServer, state: Path) -> Iterator[Client]:
    client = Client(server, "admin", state)
    yield client
    client.session.close()


@pytest.fixture(autouse=True)
def _no_faults_stay(server: DemoServer) -> Iterator[None]:
    yield
    server.faults.clear()


# -- listings -------------------------------------------------------------------------------


def test_every_level(admin: Client) -> None:
    archive = admin.archive
    projects = archive.items(PROJECT, None, wait())
    assert [item.id for item in projects] == ["PVT000", "SHARED00", "PUB000"]
    subjects = archive.items(SUBJECT, admin.project(), wait())
    assert {item.label: item.address for item in subjects}["Haofei01"] == "/subjects/XNAT_S00001"
    experiment = admin.experiment()
    assert experiment.address == "/experiments/XNAT_E00001"
    assert experiment.cells["subject_ID"] == "XNAT_S00001"
    scans = archive.items(SCAN, experiment, wait())
    assert [item.id for item in scans] == ["1", "4", "5_b", "6", "1-MR1"]
    assert scans[1].cells["type"] == "Ax_3D_T1"
    (assessor,) = archive.items(ASSESSOR, experiment, wait())
    assert assessor.address == "/experiments/XNAT_E00001/assessors/XNAT_E00002"
    (reconstruction,) = archive.items(RECONSTRUCTION, experiment, wait())
    assert reconstruction.address == "/experiments/XNAT_E00001/reconstructions/R1"


def test_all_experiments_are_sessions(admin: Client) -> None:
    found = {item.id: item.cells["project"] for item in admin.archive.experiments(wait())}
    assert found == {
        "XNAT_E00001": "PVT000",
        "XNAT_E00003": "PVT000",
        "XNAT_E00004": "PVT000",
        "XNAT_E00005": "SHARED00",
        "XNAT_E00006": "PUB000",
    }


def test_resources_of_a_session_come_in_one_request(admin: Client) -> None:
    experiment = admin.experiment()
    forget(admin.server)
    found = admin.archive.resources(experiment, wait())
    assert len(logged(admin.server)) == 1
    where = {(item.address.rsplit("/resources/", 1)[0], item.label) for item in found}
    session = "/experiments/XNAT_E00001"
    assert {
        (session, "QC"),
        (session, ""),
        (f"{session}/scans/4", "DICOM"),
        (f"{session}/scans/1-MR1", "DICOM"),
        (f"{session}/reconstructions/R1", "MPR"),
        (f"{session}/assessors/XNAT_E00002", "RESULT"),
    } <= where
    # Own and other projects' and subjects' resources do not mix in.
    assert "PROTOCOL" not in {item.label for item in found}
    (protocol,) = admin.archive.resources(admin.project(), wait())
    assert (protocol.label, protocol.address[:27]) == ("PROTOCOL", "/projects/PVT000/resources/")


def test_input_resources(admin: Client) -> None:
    experiment = admin.experiment()
    ids = [item.id for item in admin.archive.items(ASSESSOR, experiment, wait())]
    (item,) = admin.archive.input_resources(experiment, ASSESSOR, ids, wait())
    assert (item.label, item.cells["cat_id"]) == ("INPUT", "XNAT_E00002")
    assert item.address == f"{experiment.address}/assessors/{ids[0]}/in/resources/{item.id}"
    assert admin.paths(item) == ["input.txt"]
    assert admin.get(item, "input.txt")
    assert admin.archive.input_resources(experiment, ASSESSOR, [], wait()) == []
    # Gone or unaddressable ids do not bring the session's resources instead.
    assert admin.archive.input_resources(experiment, ASSESSOR, ["NOPE"], wait()) == []
    assert admin.archive.input_resources(experiment, ASSESSOR, ["a,b"], wait()) == []


def test_files_of_a_session_come_in_one_request(admin: Client) -> None:
    experiment = admin.experiment()
    singly = {
        (row.resource_id, row.path, row.size, row.digest)
        for resource in admin.archive.resources(experiment, wait())
        for row in admin.archive.files(resource, wait())
    }
    forget(admin.server)
    at_once = admin.archive.session_files([experiment], wait())
    assert len(logged(admin.server)) == 1
    assert {(row.resource_id, row.path, row.size, row.digest) for row in at_once} == singly
    assert len(at_once) == len(singly)


def test_what_is_gone_is_not_found(admin: Client) -> None:
    experiment = admin.experiment()
    gone = Item(EXPERIMENT, "XNAT_E99999", "x", "/experiments/XNAT_E99999", {})
    with pytest.raises(NotFound):
        admin.archive.resources(gone, wait())
    with pytest.raises((NotFound, ServerFault)):
        admin.archive.items(SCAN, gone, wait())
    resource = admin.resource("QC")
    other = Item(resource.level, "99999", "x", f"{experiment.address}/resources/99999", {})
    with pytest.raises(NotFound):
        admin.archive.files(other, wait())
    with pytest.raises(NotFound):
        admin.archive.head(resource, "nope.txt", wait())
    with pytest.raises(NotFound):
        admin.get(resource, "nope.txt")


def test_rights(admin: Client, server: DemoServer, state: Path) -> None:
    member, reader = Client(server, "member", state), Client(server, "reader", state)
    assert "PVT000" in admin.archive.projects_where("delete", "projects", wait())
    assert "PVT000" in member.archive.projects_where("edit", "sessions", wait())
    assert "PVT000" not in member.archive.projects_where("delete", "sessions", wait())
    assert "PVT000" not in reader.archive.projects_where("edit", "sessions", wait())
    resource = admin.resource("QC")
    before = [item.id for item in admin.archive.resources(admin.experiment(), wait())]
    assert admin.archive.may_edit(resource, wait())
    assert member.archive.may_edit(resource, wait())
    assert not reader.archive.may_edit(resource, wait())
    assert [item.id for item in admin.archive.resources(admin.experiment(), wait())] == before
    with pytest.raises(NotPermitted):
        reader.archive.create_resource(reader.experiment(), "MINE", wait())
    listing = member.archive.files(resource, wait())
    with pytest.raises(NotPermitted):
        member.archive.delete_file(resource, "qc.csv", listing, wait())
    with pytest.raises(NotPermitted):
        member.archive.delete_resource(resource, wait())
    assert admin.paths(resource) == ["qc.csv"]


def test_folders(admin: Client) -> None:
    resource = admin.new_resource("FOLDERS")
    with pytest.raises(AlreadyExists):
        admin.archive.create_resource(admin.experiment("Haofei01_MR2"), "FOLDERS", wait())
    forget(admin.server)
    with pytest.raises(BadName):
        admin.archive.create_resource(admin.experiment(), "a,b", wait())
    assert [entry.verb for entry in logged(admin.server)] == ["GET", "GET"]  # the experiment only
    assert admin.paths(resource) == []
    admin.archive.delete_resource(resource, wait())
    with pytest.raises(NotFound):
        admin.archive.may_edit(resource, wait())


# -- down -----------------------------------------------------------------------------------


def test_every_sample_file_is_readable(admin: Client) -> None:
    for resource in admin.archive.resources(admin.experiment(), wait()):
        for row in admin.archive.files(resource, wait()):
            if row.path == "gone.txt":  # the sample's entry without a file
                with pytest.raises(NotFound):
                    admin.get(resource, row.path)
                continue
            content = admin.get(resource, row.path)
            assert row.size in (None, len(content))
            assert row.digest in ("", hashlib.md5(content).hexdigest())


@pytest.mark.parametrize(
    ("start", "length"),
    [(0, None), (0, 10), (5, 10), (131072, 5000), (132171, 1), (132172, 10), (500000, None)],
)
@pytest.mark.parametrize("known", [True, False])
def test_ranges(admin: Client, start: int, length: int | None, known: bool) -> None:
    dicom = next(
        item
        for item in admin.archive.resources(admin.experiment(), wait())
        if item.address.startswith("/experiments/XNAT_E00001/scans/4/") and item.label == "DICOM"
    )
    row = admin.archive.files(dicom, wait())[0]
    whole = admin.get(dicom, row.path)
    assert len(whole) == row.size
    got: list[bytes] = []
    head = admin.transfer.fetch(
        dicom,
        row.path,
        got.append,
        wait(),
        start=start,
        length=length,
        size=row.size if known else None,
    )
    end = len(whole) if length is None else start + length
    assert b"".join(got) == whole[start:end]
    assert head.size == row.size


def test_an_empty_file(admin: Client) -> None:
    names = admin.resource("NAMES")
    got: list[bytes] = []
    head = admin.transfer.fetch(names, "empty.txt", got.append, wait(), length=4096, size=0)
    assert (head.size, got) == (0, [])
    # No range was asked of it (R§3.2).
    assert logged(admin.server)[-1].status == 200


def test_another_version_is_stale(admin: Client) -> None:
    names = admin.resource("NAMES")
    head = admin.archive.head(names, "plain.txt", wait())
    assert head.size == 6
    for size, modified, start in [
        (7, "", 0),
        (5, "", 0),
        (7, "", 1),
        (6, "Thu, 08 Apr 2021 19:28:44 GMT", 0),
        (6, "Thu, 08 Apr 2021 19:28:44 GMT", 2),
    ]:
        got: list[bytes] = []
        with pytest.raises(Stale):
            admin.transfer.fetch(
                names,
                "plain.txt",
                got.append,
                wait(),
                start=start,
                size=size,
                modified=modified,
            )
        assert got == []


def test_names_that_no_address_carries(admin: Client) -> None:
    for path in ("a;b", "50%", "a\\b"):
        with pytest.raises(BadName):
            admin.transfer.fetch(admin.resource("NAMES"), path, lambda _: None, wait())


def test_a_body_that_ends_early(admin: Client, server: DemoServer) -> None:
    names = admin.resource("NAMES")
    whole = admin.get(names, "no-size.txt")
    for kind in ("truncate", "reset_after"):
        server.faults.clear()
        server.faults.add(Fault(kind=kind, path="no-size.txt", bytes=9, count=1))
        got: list[bytes] = []
        with pytest.raises(TransferBroken):
            admin.transfer.fetch(names, "no-size.txt", got.append, wait(), size=len(whole))
        arrived = b"".join(got)
        assert whole.startswith(arrived)
        admin.transfer.fetch(
            names, "no-size.txt", got.append, wait(), start=len(arrived), size=len(whole)
        )
        assert b"".join(got) == whole


def test_a_body_that_stalls(admin: Client, server: DemoServer) -> None:
    names = admin.resource("NAMES")
    server.faults.add(Fault(kind="stall", path="no-size.txt", bytes=9, seconds=30, count=1))
    waiter = Waiter(idle_s=0.5)
    got: list[bytes] = []
    with pytest.raises(TimedOut):
        admin.transfer.fetch(names, "no-size.txt", got.append, waiter, size=31)
    assert len(b"".join(got)) <= 9


def test_a_web_page_is_no_file(admin: Client, server: DemoServer) -> None:
    names = admin.resource("NAMES")
    html = admin.get(names, "page.html")
    assert html.startswith(b"<")  # a page that is a file is one
    server.faults.add(Fault(kind="html", path="/files/"))
    got: list[bytes] = []
    with pytest.raises(BadReply):
        admin.transfer.fetch(names, "plain.txt", got.append, wait())
    assert got == []
    with pytest.raises(BadReply):
        admin.archive.head(names, "plain.txt", wait())
    server.faults.add(Fault(kind="html", path="format=json"))
    with pytest.raises(BadReply):
        admin.archive.files(names, wait())


# -- up -------------------------------------------------------------------------------------

NAMES = [
    "plain.nii",
    "sub/deep/er.json",
    "with space.txt",
    "plus+plus.txt",
    "größe.nii",
    "sub/größe#1.nii",
    "a#b?c.txt",
    "it's (1) [2] {3}.txt",
    'quote".txt',
    "gr%C3%B6.txt",
    "all+ #ü'\".txt",
    "empty",
]


def test_names_survive_a_round_trip(admin: Client) -> None:
    resource = admin.new_resource("ROUND")
    for number, path in enumerate(NAMES):
        content = b"" if path == "empty" else f"{number} {path}".encode() * 1000
        assert admin.put(resource, path, content) is Sent.STORED
        assert admin.get(resource, path) == content
        assert admin.put(resource, path, b"other") is Sent.DUPLICATE
        assert admin.get(resource, path) == content
    listed = {row.path: row for row in admin.archive.files(resource, wait())}
    assert sorted(listed) == sorted(NAMES)
    for number, path in enumerate(NAMES):
        again = f"again {number}".encode()
        if path in ("sub/größe#1.nii", 'quote".txt'):
            with pytest.raises(BadName):
                admin.put(resource, path, again, overwrite=True)
            continue
        assert admin.put(resource, path, again, overwrite=True) is Sent.STORED
        assert admin.get(resource, path) == again
    # And each goes alone.
    rest = list(NAMES)
    for path in NAMES:
        listing = admin.archive.files(resource, wait())
        admin.archive.delete_file(resource, path, listing, wait())
        rest.remove(path)
        assert sorted(admin.paths(resource)) == sorted(rest)


def test_a_delete_takes_no_sibling(admin: Client) -> None:
    resource = admin.new_resource("ALIKE")
    names = ["a.nii", "a.nii.gz", "a.nii.json", "aXnii", "sub/x", "sub/xy", "sub2/x"]
    for path in names:
        admin.put(resource, path, path.encode())
    for path in ("sub/x", "a.nii.gz"):
        admin.archive.delete_file(resource, path, admin.archive.files(resource, wait()), wait())
        names.remove(path)
        assert sorted(admin.paths(resource)) == sorted(names)
    # "a.nii" is a prefix of one name and, as a pattern, another: nothing selects it alone.
    with pytest.raises(BadName):
        admin.archive.delete_file(resource, "a.nii", admin.archive.files(resource, wait()), wait())
    assert sorted(admin.paths(resource)) == sorted(names)


def test_names_that_cannot_be_stored_are_refused_before_anything_is_sent(
    admin: Client,
) -> None:
    resource = admin.new_resource("REFUSED")
    forget(admin.server)
    for path in ("a;b", "50%", "a\\b", "x_catalog.xml", "a.zip/b", "a//b", "n" * 300, "\udcff"):
        with pytest.raises(BadName):
            admin.put(resource, path, b"x")
    assert logged(admin.server) == []


def test_a_reader_stores_nothing(admin: Client, server: DemoServer, state: Path) -> None:
    # R§4.5: a silent 200; the caller's verification finds out.
    resource = admin.resource("QC")
    Client(server, "reader", state).put(resource, "silent.txt", b"x")
    assert admin.paths(resource) == ["qc.csv"]


def test_a_large_body_in_small_memory(admin: Client, tmp_path: Path) -> None:
    resource = admin.new_resource("LARGE")
    file = tmp_path / "large"
    content = bytes(range(256)) * (12 << 12)  # 12 MiB
    file.write_bytes(content)
    opened: list[object] = []

    def open_body() -> io.BufferedReader:
        opened.append(None)
        return file.open("rb")

    sent = admin.transfer.send(resource, "large", open_body, len(content), wait(), overwrite=False)
    assert (sent, len(opened)) == (Sent.STORED, 1)
    (row,) = admin.archive.files(resource, wait())
    assert (row.size, row.digest) == (len(content), hashlib.md5(content).hexdigest())
    pieces: list[int] = []
    admin.transfer.fetch(
        resource, "large", lambda piece: pieces.append(len(piece)), wait(), size=row.size
    )
    assert sum(pieces) == len(content)
    assert max(pieces) <= 1 << 20


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(kind="status", verb="PUT", code=500), ServerFault),
        (Fault(kind="status_after", verb="PUT", code=500), ServerFault),
        (Fault(kind="status", verb="PUT", code=403), NotPermitted),
        (Fault(kind="status", verb="PUT", code=413), QuotaExceeded),
        (Fault(kind="status", verb="PUT", code=404), NotFound),
        (Fault(kind="reset", verb="PUT"), TransferBroken),
        (Fault(kind="html", verb="PUT"), BadReply),
    ],
)
def test_a_failed_upload_is_not_repeated(
    admin: Client, server: DemoServer, fault: Fault, error: type[Exception]
) -> None:
    resource = admin.resource("QC")
    opened: list[object] = []

    def open_body() -> io.BytesIO:
        opened.append(None)
        return io.BytesIO(b"123")

    server.faults.add(fault)
    with pytest.raises(error):
        admin.transfer.send(resource, "q.txt", open_body, 3, wait(), overwrite=True)
    assert len(opened) == 1
    server.faults.clear()
    for row in admin.archive.files(resource, wait()):
        if row.path == "q.txt":
            listing = admin.archive.files(resource, wait())
            admin.archive.delete_file(resource, "q.txt", listing, wait())


def test_every_change_says_why(tmp_path: Path) -> None:
    server = DemoServer(ServerOptions(root=tmp_path / "a", sample="small", require_reason=True))
    server.start()
    try:
        client = Client(server, "admin", tmp_path / "state")
        resource = client.new_resource("WHY")
        for path in ("a.txt", "ü.txt"):
            assert client.put(resource, path, b"x") is Sent.STORED
            listing = client.archive.files(resource, wait())
            client.archive.delete_file(resource, path, listing, wait())
        client.archive.delete_resource(resource, wait())
        changes = [entry for entry in logged(server) if entry.verb != "GET"]
        assert len(changes) == 6
        assert all("event_reason=testing" in entry.path for entry in changes)
    finally:
        server.stop()
