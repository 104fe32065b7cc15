"""Many clients for a long time: no wrong byte, no lost file, only the errors XNAT itself gives."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import random
import threading
import time
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest

from tests.demo.conftest import BOUNDARY, multipart
from xnatfs.demo.order import Order

CLIENTS = 32
SECONDS = 60.0
SESSION = "/data/experiments/XNAT_E1000001"
SHARED = f"{SESSION}/resources/SHARED"
ORDER = Order(sessions=40, scans=3, files=20, file_size=150_000)


@dataclass
class Worker:
    """One client: reads what is on order, writes to a resource of its own and to a shared one.

    ``own`` and ``shared`` are what the server said it has; a write to the shared resource may
    be refused by a catalog conflict (R§4.6), one to its own may not.
    """

    url: str
    number: int
    until: float
    own: dict[str, str] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.number)
        self._connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=50)
        self._headers = {"Authorization": "Basic YWRtaW46YWRtaW4="}
        self._place = f"{SESSION}/resources/OWN{self.number}"

    def work(self) -> None:
        deeds = (
            (6, self._read), (1, self._read_all), (1, self._list), (4, self._write_own),
            (2, self._write_shared), (1, self._overwrite), (1, self._delete),
        )  # fmt: skip
        kinds = [deed for weight, deed in deeds for _ in range(weight)]
        try:
            while time.monotonic() < self.until:
                self._dice.choice(kinds)()
        except Exception as problem:  # noqa: BLE001 - told by the test itself
            self.problems.append(f"{type(problem).__name__}: {problem}")
        finally:
            self._connection.close()

    def _ask(self, verb: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        headers = dict(self._headers)
        if body is not None:
            headers["Content-Type"] = f"multipart/form-data; boundary={BOUNDARY}"
        self._connection.request(verb, path, body, headers)
        answer = self._connection.getresponse()
        for name, value in answer.getheaders():
            if name == "Set-Cookie" and value.startswith("JSESSIONID"):
                self._headers["Cookie"] = value.partition(";")[0]
        content = answer.read()
        self.answers[verb, answer.status] += 1
        return answer.status, content

    def _rows(self, resource: str) -> list[dict[str, str]]:
        status, body = self._ask("GET", f"{resource}/files?format=json")
        assert status == 200
        rows: list[dict[str, str]] = json.loads(body)["ResultSet"]["Result"]
        return rows

    def _scan(self) -> str:
        session = 1_000_001 + self._dice.randrange(ORDER.sessions)
        return f"/data/experiments/XNAT_E{session}/scans/{self._dice.randint(1, ORDER.scans)}"

    def _read(self) -> None:
        row = self._dice.choice(self._rows(f"{self._scan()}/resources/DICOM"))
        status, body = self._ask("GET", row["URI"])
        assert status == 200
        assert hashlib.md5(body).hexdigest() == row["digest"], row["URI"]

    def _read_all(self) -> None:
        place = f"{self._scan()}/resources/DICOM"
        digests = {row["Name"]: row["digest"] for row in self._rows(place)}
        status, body = self._ask("GET", f"{place}/files?format=zip")
        assert status == 200
        with zipfile.ZipFile(io.BytesIO(body)) as packed:
            for name in packed.namelist():
                found = hashlib.md5(packed.read(name)).hexdigest()
                assert digests.pop(name.rpartition("/")[2]) == found, name
        assert not digests

    def _list(self) -> None:
        status, body = self._ask("GET", "/data/projects/ORDER000/experiments?format=json")
        assert status == 200
        assert body.count(b'"URI"') == ORDER.sessions

    def _content(self) -> bytes:
        return self._dice.randbytes(self._dice.choice((0, 10, 5_000, 200_000)))

    def _put(self, resource: str, name: str, query: str = "") -> tuple[int, str]:
        content = self._content()
        status, body = self._ask("PUT", f"{resource}/files/{name}{query}", multipart(content, name))
        assert (status, body) == (200, b"") or b"since I last read it" in body, (status, body)
        return status, hashlib.md5(content).hexdigest()

    def _write_own(self) -> None:
        name = f"d{self._dice.randrange(4)}/f{len(self.own)}-{self._dice.random()}"
        status, digest = self._put(self._place, name)
        assert status == 200
        self.own[name] = digest

    def _overwrite(self) -> None:
        if self.own:
            name = self._dice.choice(list(self.own))
            status, digest = self._put(self._place, name, "?overwrite=true")
            assert status == 200
            self.own[name] = digest

    def _delete(self) -> None:
        if self.own:
            name = self._dice.choice(list(self.own))
            assert self._ask("DELETE", f"{self._place}/files/{name}$*")[0] == 200
            del self.own[name]

    def _write_shared(self) -> None:
        name = f"{self.number}-{len(self.shared)}-{self._dice.random()}"
        status, digest = self._put(SHARED, name)
        # As a client must: after a 500 again with overwrite, and after a random pause. The first
        # writer wins, so that of 32 who try at once 31 lose, again and again without a pause.
        for trial in range(50):
            if status == 200:
                self.shared[name] = digest
                return
            assert status == 500
            time.sleep(self._dice.uniform(0, min(1.0, 0.02 * 2**trial)))
            status, digest = self._put(SHARED, name, "?overwrite=true")
        raise AssertionError("fifty conflicts in a row")

    def check(self) -> None:
        """What was stored is there, with its bytes and digests, and nothing else is."""
        rows = {row["URI"].partition("/files/")[2]: row for row in self._rows(self._place)}
        assert set(rows) == set(self.own)
        for name, digest in self.own.items():
            status, body = self._ask("GET", f"{self._place}/files/{name}")
            assert (status, hashlib.md5(body).hexdigest()) == (200, digest), name
            assert rows[name]["digest"] == digest
            assert rows[name]["Size"] == str(len(body))
        self._connection.close()


@pytest.mark.long
@pytest.mark.timeout(SECONDS + 180)
def test_many_clients_for_a_long_time(start):
    server, client = start(order=ORDER)
    for label in ("SHARED", *(f"OWN{it}" for it in range(CLIENTS))):
        assert client.put(f"{SESSION}/resources/{label}").status == 200
    until = time.monotonic() + SECONDS
    workers = [Worker(server.url, number, until) for number in range(CLIENTS)]
    threads = [threading.Thread(target=worker.work) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [it.problems for it in workers if it.problems] == []
    answers = sum((worker.answers for worker in workers), Counter[tuple[str, int]]())
    assert {status for _verb, status in answers} <= {200, 500}
    assert {verb for verb, status in answers if status == 500} <= {"PUT"}  # conflicts
    assert answers["GET", 200] > CLIENTS
    assert answers["PUT", 200] > CLIENTS
    print(dict(answers))
    for worker in workers:
        worker.check()
    stored = {row["Name"]: row["digest"] for row in client.get(f"{SHARED}/files").rows()}
    for worker in workers:
        assert {name: stored.pop(name) for name in worker.shared} == worker.shared
    assert stored == {}
    everything = zipfile.ZipFile(io.BytesIO(client.get(f"{SHARED}/files?format=zip").body))
    found = {it.rpartition("/")[2]: hashlib.md5(everything.read(it)).hexdigest()
             for it in everything.namelist()}  # fmt: skip
    assert found == {name: it for worker in workers for name, it in worker.shared.items()}
