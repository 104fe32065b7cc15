"""The scripted faults, seen from a client; and the control addresses for other processes."""

import gc
import hashlib
import http.client
import json
import socket
import time

import pytest

from xnatfs.demo.faults import Fault


@pytest.fixture
def path(accession):
    return f"{accession}/scans/4/resources/DICOM/files/1.2.826.0.1.3680043.10.1339.4.1.dcm"


@pytest.fixture
def size(client, path):
    return int(client.head(path).headers["Content-Length"])


def test_reset(server, client, path):
    server.faults.add(Fault(kind="reset", path="DICOM", count=1))
    with pytest.raises(ConnectionResetError):
        client.get(path)
    assert client.get(path).status == 200


def test_reset_in_the_body(server, client, path):
    server.faults.add(Fault(kind="reset_after", bytes=1000, count=1))
    with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
        client.get(path)


def test_truncate(server, client, path, size):
    server.faults.add(Fault(kind="truncate", path="DICOM", bytes=5000))
    with pytest.raises(http.client.IncompleteRead) as short:
        client.get(path)
    assert len(short.value.partial) == 5000
    assert short.value.expected == size - 5000


def test_corrupt(server, client, path):
    good = client.get(path).body
    server.faults.add(Fault(kind="corrupt", path="DICOM", bytes=77))
    bad = client.get(path).body
    assert [i for i in range(len(good)) if good[i] != bad[i]] == [77]


def test_stall_delay_slow(server, client, path, size):
    for fault in (Fault(kind="stall", seconds=0.3), Fault(kind="stall", seconds=0.3, bytes=10),
                  Fault(kind="delay", seconds=0.3), Fault(kind="slow", rate=size * 3)):  # fmt: skip
        server.faults.clear()
        server.faults.add(fault)
        began = time.monotonic()
        assert len(client.get(path).body) == size
        assert time.monotonic() - began > 0.25, fault


def test_status_before_and_after_the_work(server, client, accession):
    target = f"{accession}/resources/FAULTY/files"
    server.faults.add(Fault(kind="status", code=503, retry_after="2", verb="PUT", count=1))
    answer = client.send(f"{target}/a", b"a")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
    server.faults.add(Fault(kind="status_after", code=500, verb="PUT", count=1))
    assert client.send(f"{target}/b", b"b").status == 500
    assert [it["Name"] for it in client.get(f"{target}?format=json").rows()] == ["b"]


def test_html_and_expiry(server, client, path):
    server.faults.add(Fault(kind="html", count=1))
    answer = client.get(path)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html")
    cookie = {"Cookie": f"JSESSIONID={client.get('/data/auth').cookies()['JSESSIONID']}"}
    server.faults.add(Fault(kind="expire", count=1))
    assert client.as_(None).ask("GET", "/data/auth", headers=cookie).status == 401


def test_count_after_probability(server, client, path):
    server.faults.add(Fault(kind="status", after=1, count=2))
    assert [client.head(path).status for _ in range(4)] == [200, 500, 500, 200]
    server.faults.clear()
    server.faults.add(Fault(kind="status", probability=0.5))
    found = [client.head(path).status for _ in range(40)]
    assert 5 < found.count(500) < 35


def test_broken_upload(server, client, accession):
    """R§4.6: an in-body transfer that breaks leaves its first part in place."""
    target = f"{accession}/resources/BROKEN/files/big"
    server.faults.add(Fault(kind="reset_after", verb="PUT", bytes=70_000, count=1))
    with pytest.raises(OSError, match=r"reset|Broken pipe"):
        client.put(f"{target}?inbody=true", b"x" * 4_000_000)
    resource = next(it for it in server.site.tables.resources.all() if it.label == "BROKEN")
    assert server.site.archive.file(resource, "big").stat().st_size == 70_000
    assert client.get(f"{accession}/resources/BROKEN/files?format=json").rows() == []


def test_control_from_other_processes(server, client, path):
    rules = [{"kind": "status", "code": 502, "path": "DICOM", "count": 1}]
    assert client.ask("POST", "/demo/faults", json.dumps(rules).encode()).status == 204
    assert client.get(path).status == 502
    assert client.get(path).status == 200
    assert client.ask("POST", "/demo/faults", b'[{"kind": "nonsense"}]').status == 400
    log = client.get("/demo/log").json()
    assert [it["status"] for it in log] == [502, 200]
    assert list(log[0]) == ["time", "verb", "path", "status", "bytes", "user", "fault"]
    assert [it["fault"] for it in log] == ["status", ""]
    assert client.delete("/demo/log").status == 204
    assert server.log == []
    assert client.ask("POST", "/demo/expire").status == 204
    assert client.delete("/demo/faults").status == 204


def test_request_log(start, tmp_path, accession):
    _server, client = start(request_log=tmp_path / "log")
    body = client.as_("reader").get(f"{accession}/resources/QC/files/qc.csv?x=1").body
    line = json.loads((tmp_path / "log").read_text())
    assert line["path"].endswith("/files/qc.csv?x=1")
    assert (line["verb"], line["status"], line["user"]) == ("GET", 200, "reader")
    assert line["bytes"] == len(body)


def test_keep_alive_ends_after_100_requests(client, server):
    """R§12.12: as stock Tomcat."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    for number in range(1, 101):
        connection.request("GET", "/xapi/siteConfig/buildInfo/version")
        answer = connection.getresponse()
        answer.read()
        assert (answer.headers["Connection"] == "close") == (number == 100)


def test_sample_is_deterministic(start, tmp_path):
    digests = []
    for name in ("one", "two"):
        server, client = start(root=tmp_path / name)
        rows = client.get("/data/experiments/XNAT_E00001/files?all=true&format=json").body
        resources = client.get("/data/experiments/XNAT_E00001/resources?all=true").body
        item = client.get("/data/experiments/XNAT_E00001?format=json").body
        digests.append(hashlib.md5(rows + resources + item).hexdigest())
        server.stop()
    assert digests[0] == digests[1]


def test_stop_cuts_connections(start, accession):
    server, client = start()
    server.faults.add(Fault(kind="stall", seconds=30))
    import threading

    failed = []

    def ask():
        try:
            client.get(accession)
        except OSError as problem:
            failed.append(problem)
        except http.client.HTTPException as problem:
            failed.append(problem)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.3)
    began = time.monotonic()
    server.stop()
    thread.join(5)
    assert failed
    assert time.monotonic() - began < 2
    with pytest.raises(ConnectionRefusedError):
        client.get(accession)


def test_stop_leaves_nothing_to_who_reads_no_more(start, accession):
    """A connection that is left behind would be told of in somebody else's test."""
    server, _ = start(sample="full")
    stuck = socket.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with stuck:
        stuck.connect(("127.0.0.1", server.port))
        stuck.sendall(
            f"GET {accession}/scans/4/resources/DICOM/files?format=zip HTTP/1.1\r\n"
            "Host: x\r\nAuthorization: Basic YWRtaW46YWRtaW4=\r\n\r\n".encode()
        )
        assert stuck.recv(12) == b"HTTP/1.1 200"
        server.stop()
        gc.collect()
