"""R§11, R§12 and the costs and faults beside them: what no other module here asks."""

import http.client
import io
import socket
import tarfile
import time
import xml.etree.ElementTree as ET
import zipfile
from urllib.parse import urlsplit

import pytest

from xnatfs.demo import server as front
from xnatfs.demo.faults import Fault

BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"


def paths(client, resource):
    rows = client.get(f"{resource}/files?format=json").rows()
    return {it["URI"].split("/files/")[1] for it in rows}


def test_accept_ranges_on_everything(client, accession):
    """R§3.1: listings, items, refusals and uploads announce ranges too; nothing has an ETag."""
    for path in ("/data/projects", f"{accession}?format=json", "/data/version", "/data/auth",
                 f"{accession}/resources/NAMES/files?format=zip"):  # fmt: skip
        answer = client.get(path)
        assert answer.headers["Accept-Ranges"] == "bytes", path
        assert answer.headers["ETag"] is None
    assert client.send(f"{accession}/resources/ANY/files/x", b"x").headers["Accept-Ranges"]


def test_range_from_behind_the_end(server, client, accession):
    """R§3.2: never 416: 206, a false length and no bytes."""
    path = f"{accession}/resources/QC/files/qc.csv"
    for wish, announced in (("bytes=20-", "-4"), ("bytes=16-20", "5")):
        parts = urlsplit(server.url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=20)
        connection.request("GET", path, headers={"Range": wish, "Authorization": _basic("admin")})
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Content-Length"]) == (206, announced)
        with pytest.raises(http.client.IncompleteRead) if announced == "5" else _nothing():
            assert answer.read() == b""
        connection.close()


def _basic(user):
    import base64

    return "Basic " + base64.b64encode(f"{user}:{user}".encode()).decode()


def _nothing():
    from contextlib import nullcontext

    return nullcontext()


def test_names_in_whole_sessions(client, accession):
    """R§3.4: without `scans/` in the URL the type is not in the name; tar names are the same."""
    packed = client.get(f"{accession}/files?all=true&format=zip").body
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        names = archive.namelist()
    assert "Haofei01_MR1/scans/4/resources/SNAPSHOTS/files/snap.gif" in names
    assert "Haofei01_MR1/assessors/Haofei01_QC1/out/resources/RESULT/files/result.txt" in names
    packed = client.get(f"{accession}/files?all=true&format=tar").body
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert archive.getnames() == names


def test_ids_in_paths_are_replaced(client, accession):
    """R§3.4: a segment like the scan's id gets its type, an accession becomes the label."""
    place = f"{accession}/scans/6/resources/TRAP"
    assert client.send(f"{place}/files/6/XNAT_E00001.txt", b"x").status == 200
    with zipfile.ZipFile(io.BytesIO(client.get(f"{place}/files?format=zip").body)) as archive:
        assert archive.namelist() == [
            "Haofei01_MR1/scans/6-WATER__T1_T2_0_8x0_8/resources/TRAP/files/"
            "6-WATER__T1_T2_0_8x0_8/Haofei01_MR1.txt"
        ]


@pytest.mark.parametrize(
    ("structure", "name"),
    [
        ("simplified", "Haofei01_MR1/scans/4/SNAPSHOTS/snap.gif"),
        ("improved", "Haofei01_MR1/scans/4/SNAPSHOTS/snap.gif"),
        ("legacy", "Haofei01_MR1/SCANS/4/SNAPSHOTS/snap.gif"),
        ("IMPROVED", "Haofei01_MR1/scans/4-Ax_3D_T1/resources/SNAPSHOTS/files/snap.gif"),
    ],
)
def test_structures_of_tars(client, session, structure, name):
    """R§3.4, R§12.3: tar leaves the type out; the words are case-sensitive."""
    path = f"{session}/scans/4/resources/SNAPSHOTS/files?format=tar&structure={structure}"
    with tarfile.open(fileobj=io.BytesIO(client.get(path).body)) as packed:
        assert packed.getnames() == [name]


def test_xcat(server, client, accession):
    """R§3.4: a catalog of full addresses, with path and size of each file."""
    answer = client.get(f"{accession}/scans/4/resources/SNAPSHOTS/files?format=xcat")
    space = {"cat": "http://nrg.wustl.edu/catalog"}
    entry = ET.fromstring(answer.body).find(".//cat:entry", space)
    address = entry.get("URI")
    assert address.startswith(f"{server.url}/data/experiments/XNAT_E00001/scans/4/resources/")
    assert client.get(address.removeprefix(server.url)).body == b"GIF89a;"
    notes = {it.get("name"): it.text for it in entry.iterfind(".//cat:metaField", space)}
    assert notes == {"RELATIVE_PATH": "snap.gif", "SIZE": "7"}


def test_gzip_is_no_in_body_type(client, accession):
    """R§12.10: application/x-gzip is one; application/gzip only with inbody=true."""
    files = f"{accession}/resources/GZIP/files"
    assert client.put(f"{files}/a", b"a", Content_Type="application/x-gzip").status == 200
    assert client.put(f"{files}/b", b"b", Content_Type="application/gzip").status == 400
    kind = {"Content_Type": "application/gzip"}
    assert client.put(f"{files}/c?inbody=true", b"c", **kind).status == 200
    assert paths(client, f"{accession}/resources/GZIP") == {"a", "c"}


def test_search_elements(client):
    """R§12.11: the list of types, and one of them."""
    answer = client.get("/data/search/elements?format=json")
    assert "xnat:mrSessionData" in [it["ELEMENT_NAME"] for it in answer.rows()]
    assert client.get("/data/search/elements/xnat:mrSessionData?format=json").rows() == []


def test_row_order_of_everything(client, accession):
    """R§12.12: `all=true` listings come in an order that nobody may rely on."""
    numbers = [
        int(it["xnat_abstractresource_id"])
        for it in client.get(f"{accession}/resources?all=true&format=json").rows()
    ]
    assert numbers != sorted(numbers)
    categories = [it["category"] for it in client.get(f"{accession}/resources?all=true").rows()]
    assert categories != sorted(categories)


def test_headers_over_8_kb(server, client):
    """R§12.12: all headers together may have 8 KB, then 400 from the container."""
    padding = {f"X-{number}": "x" * 1000 for number in range(7)}
    assert client.ask("GET", "/data/auth", headers=padding).status == 200
    answer = client.ask("GET", "/data/auth", headers=padding | {"X-7": "x" * 1100})
    assert answer.status == 400
    assert b"HTTP Status 400" in answer.body
    assert client.get("/data/experiments/" + "E" * 8192).status == 400


def test_idle_connections_are_closed(start, monkeypatch):
    """R§12.12: after 20 s, here after a fraction of one."""
    assert front._KEEP_ALIVE_S == 20
    monkeypatch.setattr(front, "_KEEP_ALIVE_S", 0.2)
    server, _client = start()
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall(b"GET /data/JSESSION HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        while connection.recv(65536):
            pass  # the end of the stream is the server's


def test_csrf(client, accession):
    """R§6: browsers must prove that a change comes from a page of the site; others need not."""
    page = client.get("/data/JSESSION?CSRF=true", User_Agent=BROWSER)
    token = page.body.decode().partition("XNAT_CSRF=")[2]
    sent = {"Cookie": f"JSESSIONID={page.cookies()['JSESSIONID']}", "User-Agent": BROWSER}
    browser = client.as_(None)
    place = f"{accession}/resources/CSRF"
    assert browser.ask("PUT", place, b"", sent).status == 500
    assert browser.ask("PUT", f"{place}?XNAT_CSRF=wrong", b"", sent).status == 500
    assert browser.ask("GET", f"{accession}/resources", headers=sent).status == 200
    assert browser.ask("PUT", f"{place}?XNAT_CSRF={token}", b"", sent).status == 200
    tool = sent | {"User-Agent": "xnatfs/2"}
    assert browser.ask("DELETE", place, headers=tool).status == 200


def test_scripted_conflict(server, client, accession):
    """R§4.6: 500; the bytes lie there without being listed until somebody overwrites them."""
    place = f"{accession}/resources/CONFLICT"
    assert client.send(f"{place}/files/first", b"1").status == 200
    server.faults.add(Fault(kind="conflict", path="CONFLICT", verb="PUT", count=1))
    answer = client.send(f"{place}/files/second", b"2")
    assert answer.status == 500
    assert b"since I last read it" in answer.body
    assert paths(client, place) == {"first"}
    assert client.send(f"{place}/files/second", b"2").body == b'{"duplicates":["second"]}'
    assert client.send(f"{place}/files/second?overwrite=true", b"2").body == b""
    server.faults.add(Fault(kind="conflict", path="CONFLICT", verb="DELETE", count=1))
    assert client.delete(f"{place}/files/first").status == 500
    assert paths(client, place) == {"first", "second"}
    assert client.get(f"{place}/files/first").body == b"1"


def test_catalogs_that_disagree_with_the_disk(start):
    """R§2.6, R§3.3: the listing is the catalog's, the bytes are the disk's."""
    _server, client = start(drift=True)
    place = "/data/experiments/XNAT_E00006/resources/DRIFT/files"
    rows = {it["Name"]: it for it in client.get(f"{place}?format=json").rows()}
    assert set(rows) == {"whole.bin", "lost.bin", "shorter.bin", "longer.bin", "other.bin"}
    assert client.get(f"{place}/uncatalogued.bin").status == 404
    assert client.get(f"{place}/lost.bin").status == 404
    listed, real = ({it: int(rows[it]["Size"]) for it in rows}, {})
    for name in set(rows) - {"lost.bin"}:
        real[name] = int(client.head(f"{place}/{name}").headers["Content-Length"])
    assert real["whole.bin"] == listed["whole.bin"]
    assert real["shorter.bin"] == 3 < listed["shorter.bin"]
    assert real["longer.bin"] == 2 * listed["longer.bin"]
    assert real["other.bin"] == listed["other.bin"]
    blank = client.get("/data/experiments/XNAT_E00006/resources/UNDIGESTED/files?format=json")
    assert {it["digest"] for it in blank.rows()} == {""}


def test_entries_cost(start, accession):
    """R§3.3: each request on a resource costs in proportion to its catalog."""
    _server, client = start(entry_cost_s=0.01)
    began = time.monotonic()
    client.head(f"{accession}/scans/4/resources/DICOM/files/nothing")  # 8 entries
    assert time.monotonic() - began >= 0.08
