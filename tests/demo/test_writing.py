"""R§4 and R§5: uploads in every way they go, folders, deletes."""

import io
import re
import socket
import tarfile
import threading
import time
import zipfile
from urllib.parse import urlsplit

import pytest

from xnatfs.demo.catalog import CatalogConflictError


@pytest.fixture
def box(client, accession, request):
    """A new resource of the sample session."""
    path = f"{accession}/resources/" + re.sub(r"\W+", "_", request.node.name, flags=re.ASCII)
    assert client.put(path).status == 200
    return path


def listed(client, box):
    rows = client.get(f"{box}/files?format=json").rows()
    return {it["URI"].split("/files/")[1]: it for it in rows}


def test_multipart(client, box):
    """R§4.1, R§4.5: 200 and an empty text; the digest is computed."""
    answer = client.send(f"{box}/files/sub/dir/a.nii", b"content")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Type"] == "text/plain"
    row = listed(client, box)["sub/dir/a.nii"]
    assert (row["Size"], row["Name"]) == ("7", "a.nii")
    assert row["digest"] == "9a0364b9e99bb480dd25e1f0284c8555"
    assert client.get(f"{box}/files/sub/dir/a.nii").body == b"content"


def test_multipart_without_a_path(client, box):
    """R§4.1, R§4.2: the part's basename is the name; UTF-8 arrives."""
    assert client.send(f"{box}/files", b"1", "größe#1.txt", "POST").status == 200
    assert client.send(f"{box}/files/", b"2", "C:\\dir\\two.txt", "POST").status == 200
    assert set(listed(client, box)) == {"größe#1.txt", "two.txt"}


def test_in_body(client, box):
    """R§4.1: by parameter, or by a content type of the list."""
    assert client.put(f"{box}/files/1.nii?inbody=true", b"one").status == 200
    path = f"{box}/files/2.nii"
    assert client.put(path, b"two", Content_Type="application/octet-stream").status == 200
    assert client.put(f"{box}/files/3.json", b"{}", Content_Type="application/json").status == 400
    assert client.put(f"{box}/files/4.nii", b"four").status == 400
    kind = "multipart/form-data; boundary=x"
    assert client.put(f"{box}/files/5?inbody=true", b"five", Content_Type=kind).status == 400
    kind = "application/x-www-form-urlencoded"
    assert client.put(f"{box}/files/6", b"six", Content_Type=kind).status == 500
    assert set(listed(client, box)) == {"1.nii", "2.nii"}


def test_zero_length_and_chunked(client, box):
    """R§4.1: in-body of no known length is 500 unless it calls itself a zip."""
    assert client.put(f"{box}/files/0?inbody=true", b"").status == 500
    octets = {"Content-Type": "application/octet-stream", "Transfer-Encoding": "chunked"}
    chunked = b"3\r\nabc\r\n0\r\n\r\n"
    assert client.ask("PUT", f"{box}/files/c", chunked, octets).status == 500
    assert client.put(f"{box}/files/z", b"", Content_Type="application/zip").status == 200
    zipped = octets | {"Content-Type": "application/zip"}
    assert client.ask("PUT", f"{box}/files/c", chunked, zipped).status == 200
    assert client.send(f"{box}/files/m", b"").status == 200
    assert {name: row["Size"] for name, row in listed(client, box).items()} == {
        "z": "0", "c": "3", "m": "0"}  # fmt: skip


def test_duplicates_and_overwrite(client, box):
    """R§4.5: an existing file is 200 with `duplicates`, and nothing is written."""
    client.send(f"{box}/files/a.txt", b"old")
    answer = client.send(f"{box}/files/a.txt", b"new one")
    assert (answer.status, answer.body) == (200, b'{"duplicates":["a.txt"]}')
    assert answer.headers["Content-Type"] == "text/html"
    assert client.get(f"{box}/files/a.txt").body == b"old"
    assert client.send(f"{box}/files/a.txt?overwrite=true", b"new one").body == b""
    assert client.get(f"{box}/files/a.txt").body == b"new one"
    row = listed(client, box)["a.txt"]
    assert row["Size"] == "7"
    assert b'modifiedBy="admin"' in client.get(box).body


def test_reader_is_told_nothing(client, box):
    """R§4.5: a reader's upload is a silent 200 and stores nothing."""
    answer = client.as_("reader").send(f"{box}/files/a.txt", b"x" * 5000)
    assert (answer.status, answer.body) == (200, b"")
    assert listed(client, box) == {}
    assert client.as_("reader").send(f"{box[: box.rindex('/')]}/NEVER/files/a", b"x").status == 200
    labels = [it["label"] for it in client.get(f"{box[: box.rindex('/')]}?format=json").rows()]
    assert "NEVER" not in labels


def test_unknown_parents(client, session):
    """R§4.5: 404."""
    for path in (f"{session}/scans/NOPE", "/data/experiments/NOPE", "/data/projects/NOPE",
                 "/data/projects/PVT000/subjects/NOPE"):  # fmt: skip
        assert client.send(f"{path}/resources/R/files/x", b"x").status == 404, path
    assert client.send(f"{session}/resources/99999999/files/x", b"x").status == 404
    assert client.as_("nobody").send(f"{session}/resources/R/files/x", b"x").status == 404


def test_resource_is_made_by_the_first_file(client, accession):
    """R§4.4: label as in the URL; a scan's first resource gets content RAW."""
    assert client.send(f"{accession}/scans/5_b/resources/AUTO/files/x", b"x").status == 200
    row = client.get(f"{accession}/scans/5_b/resources?format=json").rows()[0]
    assert (row["label"], row["content"], row["file_count"]) == ("AUTO", "RAW", "1")
    assert client.send(f"{accession}/scans/5_b/resources/SECOND/files/x", b"x").status == 200
    row = client.get(f"{accession}/scans/5_b/resources?format=json").rows()[1]
    assert row["content"] == ""


def test_number_of_another_level_makes_a_new_resource(client, accession):
    """R§12.8: PUT looks at its own level only."""
    scan = client.get(f"{accession}/scans/4/resources?format=json").rows()[0]
    number = scan["xnat_abstractresource_id"]
    assert client.send(f"{accession}/resources/{number}/files/lost", b"x").status == 200
    own = client.get(f"{accession}/resources?format=json").rows()
    assert number in [it["label"] for it in own]


def test_parameters_reach_entry_and_resource(client, box):
    """R§4.3: format, content, tags on both."""
    client.send(f"{box}/files/a?format=NIFTI&content=T1&tags=x,y", b"a")
    row = listed(client, box)["a"]
    assert (row["file_format"], row["file_content"], row["file_tags"]) == ("NIFTI", "T1", "x,y")
    rows = client.get(f"{box[: box.rindex('/')]}?format=json").rows()
    mine = next(it for it in rows if it["label"] == box.rsplit("/", 1)[1])
    assert (mine["format"], mine["content"], mine["tags"]) == ("NIFTI", "T1", "x,y")


def test_stats(client, box):
    """R§2.6, R§4.3: counts come from the database; update-stats=false leaves them stale."""

    def stats():
        rows = client.get(f"{box[: box.rindex('/')]}?format=json").rows()
        mine = next(it for it in rows if it["label"] == box.rsplit("/", 1)[1])
        return mine["file_count"], mine["file_size"]

    client.send(f"{box}/files/a", b"12345")
    assert stats() == ("1", "5")
    client.send(f"{box}/files/b?update-stats=false", b"12345")
    assert stats() == ("1", "5")


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("a%23b.txt", "a%23b.txt"),
        ("%C3%A9.txt", "%C3%A9.txt"),
        ("a+b.txt", "a+b.txt"),
        ("a%20b+c%23.txt", "a b c#.txt"),
        ("a%2Bb%C3%A9.txt", "a+bé.txt"),
        ("a%2bb.txt", "a%2bb.txt"),
        ("!$&'()*,=:@~-._", "!$&'()*,=:@~-._"),
    ],
)
def test_decoding_of_targets(client, box, sent, stored):
    """R§4.2, R§12.9: decoded only when %20 or %2B occurs, then the whole path as a form."""
    assert client.send(f"{box}/files/{sent}", b"x").status == 200
    assert set(listed(client, box)) == {stored}


def test_bad_targets(client, box):
    """R§4.2: folders and files do not change places; catalogs are protected; firewall."""
    client.send(f"{box}/files/a", b"file")
    assert client.send(f"{box}/files/a/b", b"x").status == 500
    client.send(f"{box}/files/d/e", b"x")
    assert client.send(f"{box}/files/d", b"x").body == b'{"duplicates":["d"]}'
    assert client.send(f"{box}/files/d?overwrite=true", b"x").status == 500
    catalog = f"{box}/files/{box.rsplit('/', 1)[1]}_catalog.xml"
    assert client.send(f"{catalog}?overwrite=true", b"x").status == 500
    assert client.send(f"{box}/files/a%25b", b"x").status == 500
    assert client.send(f"{box}/files//b", b"x").status == 500
    assert set(listed(client, box)) == {"a", "d/e"}


def _archive(kind, members):
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w") as packed:
            for name, content in members.items():
                packed.writestr(name, content)
    else:
        with tarfile.open(fileobj=out, mode="w:gz" if kind != "tar" else "w") as packed:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                packed.addfile(info, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tgz"])
def test_extract(client, box, kind):
    """R§4.3: unpacked into the root, folders kept, the archive itself is not."""
    packed = _archive(kind, {"mr_1/1.dcm": b"one", "größe.nii": b"two", "a#b": b"three"})
    answer = client.send(f"{box}/files/ignored?extract=true", packed, f"up.{kind}", "POST")
    assert (answer.status, answer.body) == (200, b"")
    assert set(listed(client, box)) == {"mr_1/1.dcm", "größe.nii", "a#b"}
    again = client.send(f"{box}/files?extract=true", packed, f"up.{kind}", "POST")
    assert len(again.json()["duplicates"]) == 3


def test_extract_of_gz_unzips_it(client, box):
    """R§4.3: x.nii.gz becomes x.nii."""
    import gzip

    client.send(f"{box}/files?extract=true", gzip.compress(b"volume"), "x.nii.gz", "POST")
    assert client.get(f"{box}/files/x.nii").body == b"volume"


def _broken(server, path, head, sent):
    """Send a PUT whose connection is reset before its body is complete."""
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        connection.sendall(f"PUT {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode() + sent)
        time.sleep(0.2)
    time.sleep(0.3)


BASIC = "Authorization: Basic YWRtaW46YWRtaW4="


def test_broken_in_body_transfer_leaves_its_part(server, client, box):
    """R§4.6: unlisted, then `duplicates`; overwrite repairs it."""
    _broken(server, f"{box}/files/big?inbody=true", f"{BASIC}\r\nContent-Length: 5000", b"x" * 1000)
    assert listed(client, box) == {}
    resource = next(it for it in server.site.tables.resources.all() if box.endswith(it.label)
                    and it.label)  # fmt: skip
    assert server.site.archive.file(resource, "big").stat().st_size == 1000
    assert client.send(f"{box}/files/big", b"again").body == b'{"duplicates":["big"]}'
    assert client.send(f"{box}/files/big?overwrite=true", b"again").body == b""
    assert client.get(f"{box}/files/big").body == b"again"


def test_broken_in_body_overwrite_keeps_the_old_catalog(server, client, box):
    """R§4.6: the listing shows the old size and digest over truncated bytes."""
    client.send(f"{box}/files/f", b"y" * 3000)
    before = listed(client, box)["f"]
    _broken(server, f"{box}/files/f?inbody=true&overwrite=true",
            f"{BASIC}\r\nContent-Length: 5000", b"x" * 1000)  # fmt: skip
    assert listed(client, box)["f"] == before
    assert client.get(f"{box}/files/f").body == b"x" * 1000


def test_broken_multipart_changes_nothing(server, client, box):
    """R§4.6: it fails while spooling."""
    client.send(f"{box}/files/f", b"whole")
    head = f"{BASIC}\r\nContent-Type: multipart/form-data; boundary=B\r\nContent-Length: 5000"
    part = b'--B\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n' + b"x" * 900
    _broken(server, f"{box}/files/f?overwrite=true", head, part)
    assert client.get(f"{box}/files/f").body == b"whole"
    assert not list(server.site.archive.spool.iterdir())


def test_catalog_conflict_leaves_an_orphan(server, client, box):
    """R§4.6: 500; the bytes are in place but unlisted; only overwrite brings them in."""
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port)) as slow:
        head = f"PUT {box}/files/slow?inbody=true HTTP/1.1\r\nHost: x\r\n{BASIC}\r\n"
        slow.sendall(f"{head}Content-Length: 6\r\n\r\nabc".encode())
        time.sleep(0.3)
        assert client.send(f"{box}/files/quick", b"q").status == 200
        slow.sendall(b"def")
        answer = b""
        while b"</html>" not in answer:
            answer += slow.recv(65536) or b"</html>"
    assert answer.startswith(b"HTTP/1.1 500")
    assert b"since I last read it" in answer
    assert set(listed(client, box)) == {"quick"}
    assert client.send(f"{box}/files/slow", b"abcdef").body == b'{"duplicates":["slow"]}'
    assert client.send(f"{box}/files/slow?overwrite=true", b"abcdef").status == 200
    assert set(listed(client, box)) == {"quick", "slow"}


def test_conflicts_are_the_only_loss_of_many_writers(server, client, box):
    """R§4.6: parallel writers get 200 or 500; what got 200 is listed with its bytes."""
    done = {}

    def write(number):
        done[number] = client.send(f"{box}/files/{number}", b"%d" % number).status

    threads = [threading.Thread(target=write, args=(it,)) for it in range(16)]
    for it in threads:
        it.start()
    for it in threads:
        it.join()
    assert set(done.values()) <= {200, 500}
    stored = listed(client, box)
    assert {str(it) for it, status in done.items() if status == 200} == set(stored)
    assert issubclass(CatalogConflictError, Exception)


def test_folder(client, accession):
    """R§5.1, R§10.7: 200, 409, and 403 before anything else for who may not."""
    path = f"{accession}/resources/FOLDER"
    assert client.as_("reader").put(path).status == 403
    assert client.as_("member").put(path + "?format=NIFTI&content=T1").status == 200
    answer = client.put(path)
    assert answer.status == 409
    assert b"<h3>Specified resource already exists.</h3>" in answer.body
    assert client.as_("reader").put(path).status == 403
    assert client.put(f"{path}/junk").status == 400
    assert client.as_("member").delete(path).status == 403
    assert client.delete(path).status == 200
    assert client.delete(path).status == 200  # unknown: 200, nothing done


def _filled(client, box, *names):
    for name in names:
        assert client.send(f"{box}/files/{name}", b"x").status == 200


def test_delete_is_a_prefix_delete(client, box):
    """R§5.2: siblings that start alike go too."""
    _filled(client, box, "a.nii", "a.nii.gz", "b.nii", "sub/f/1", "sub/f2/1", "sub/g")
    assert client.delete(f"{box}/files/a.nii").status == 200
    assert set(listed(client, box)) == {"b.nii", "sub/f/1", "sub/f2/1", "sub/g"}
    assert client.delete(f"{box}/files/sub/f/").status == 200
    assert set(listed(client, box)) == {"b.nii", "sub/f2/1", "sub/g"}
    assert client.delete(f"{box}/files/sub/f").status == 200
    assert set(listed(client, box)) == {"b.nii", "sub/g"}
    assert client.delete(f"{box}/files").status == 200
    assert listed(client, box) == {}


def test_exact_delete_by_regex(client, box):
    """R§5.2: `name$*` is a regular expression over whole paths."""
    _filled(client, box, "sub/a.nii", "sub/a.nii.gz", "sub/a.nii2")
    assert client.delete(f"{box}/files/sub/a.nii$*").status == 200
    assert set(listed(client, box)) == {"sub/a.nii.gz", "sub/a.nii2"}
    client.send(f"{box}/files", b"x", "é#.txt", "POST")
    assert "é#.txt" in listed(client, box)
    assert client.delete(f"{box}/files/...txt$*").status == 200
    assert "é#.txt" not in listed(client, box)


def test_delete_statuses(client, box, accession):
    """R§5.2: 403 for members, 404 no match, 400 no resource."""
    _filled(client, box, "a")
    assert client.as_("member").delete(f"{box}/files/a").status == 403
    assert client.as_("reader").delete(f"{box}/files/a").status == 403
    assert client.delete(f"{box}/files/nope").status == 404
    assert client.delete(f"{box}/files/nope?accept-not-found=true").status == 204
    assert client.delete(f"{accession}/resources/NOPE/files/a").status == 400
    assert client.delete(f"{box}/files/a?removeFiles=false").status == 200
    assert client.send(f"{box}/files/a", b"x").body == b'{"duplicates":["a"]}'


def test_of_two_with_one_label_the_first_is_meant(client, accession):
    """R§8: GET reads both, PUT and DELETE of files look at the first; numbers tell them apart."""
    twice = f"{accession}/resources/TWICE"
    assert client.delete(f"{twice}/files/second.txt").status == 404
    assert client.send(f"{twice}/files/third.txt", b"3").status == 200
    rows = {it["Name"]: it["cat_ID"] for it in client.get(f"{twice}/files?format=json").rows()}
    assert rows["third.txt"] == rows["first.txt"] != rows["second.txt"]
    assert client.delete(f"{twice}/files/third.txt").status == 200
    there = f"{accession}/resources/{rows['second.txt']}/files"
    assert client.send(f"{there}/fourth.txt", b"4").status == 200
    assert client.delete(f"{there}/fourth.txt").status == 200


def test_refresh(client, box):
    """R§7: append finds files that no catalog lists, delete drops lost ones."""
    _filled(client, box, "a")
    client.delete(f"{box}/files/a?removeFiles=false")
    where = box.replace("/data/", "/archive/")
    answer = client.ask("POST", f"/data/services/refresh/catalog?resource={where}&options=append,"
                        "checksum,populateStats")  # fmt: skip
    assert answer.status == 200
    assert listed(client, box)["a"]["digest"]


def test_event_reason(start, accession):
    """R§4.3: sites may refuse changes without one."""
    _server, client = start(require_reason=True)
    assert client.put(f"{accession}/resources/R").status == 403
    assert client.put(f"{accession}/resources/R?event_reason=because").status == 200
    assert client.send(f"{accession}/resources/R/files/x", b"x").status == 403


def test_without_checksums(start, accession):
    """R§7: no digest for new files, a stale one after an overwrite."""
    _server, client = start(checksums=False)
    path = f"{accession}/resources/QC/files"
    client.send(f"{path}/new", b"x")
    rows = {it["Name"]: it for it in client.get(f"{path}?format=json").rows()}
    assert rows["new"]["digest"] == ""


def test_restart_keeps_everything(start, session, accession, tmp_path):
    """Files, catalogs, objects, rights and tokens; what was deleted stays so; ids are new."""
    server, client = start(root=tmp_path / "kept")
    place = "/data/projects/PVT000/subjects"
    client.send(f"{accession}/resources/KEPT/files/sub/a?format=X&tags=t", b"kept")
    client.send(f"{accession}/resources/KEPT/files", b"umlaut", "ö.txt", "POST")
    client.delete(f"{accession}/resources/QC")
    client.put(f"{place}/Haofei01/experiments/Haofei01_MR2?label=OTHER")
    client.put(f"{place}/Subject_02/projects/SHARED00?label=There")
    client.put(f"{place}/Subject_02?gender=male")
    client.put(f"{session}/scans/9?xsiType=xnat:mrScanData&type=T9")
    made = client.put(f"{place}/LAST").body
    client.put("/data/projects/PVT000/users/Members/nobody")
    token = client.as_("reader").get("/data/services/tokens/issue").json()
    paths = (
        "/data/projects/PVT000/experiments", f"{place}?columns=label,gender", f"{session}/scans",
        "/data/projects/SHARED00/subjects?sortBy=ID", f"{accession}/resources",
        f"{accession}/resources/KEPT",
        f"{accession}/files?all=true", "/data/projects/PVT000/users", "/data/projects",
    )  # fmt: skip
    before = [client.get(it).body for it in paths]
    server.stop()
    _again, client = start(root=tmp_path / "kept")
    assert [client.get(it).body for it in paths] == before
    assert client.get(f"{accession}/resources/KEPT/files/sub/a").body == b"kept"
    alias = client.as_(token["alias"])
    assert alias.ask("GET", "/data/auth", password=token["secret"]).status == 200
    assert client.put(f"{place}/NEXT").body > made
