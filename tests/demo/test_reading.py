"""R§3: single files, ranges, conditions, folders, short-cuts, bulk."""

import gzip
import hashlib
import io
import tarfile
import zipfile

import pytest


@pytest.fixture
def names(accession):
    return f"{accession}/resources/NAMES/files"


def test_headers_of_a_file(client, accession):
    """R§3.1."""
    path = f"{accession}/resources/QC/files/qc.csv"
    answer = client.get(path)
    assert answer.body == b"scan,snr\n4,31.5\n"
    assert answer.headers["Content-Length"] == "16"
    assert answer.headers["Last-Modified"] == "Thu, 08 Apr 2021 19:28:45 GMT"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="qc.csv";'
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["ETag"] is None
    head = client.head(path)
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", "16")


def test_types_by_extension(client, names):
    """R§3.1: few are known, the rest is octet-stream."""
    assert client.get(f"{names}/plain.txt").headers["Content-Type"] == "text/plain"
    assert client.get(f"{names}/page.html").headers["Content-Type"] == "text/html"
    assert client.get(f"{names}/no-size.txt").status == 200


def test_digest_and_size_of_every_listed_file(client, accession):
    """R§2.6, R§7: what the listing says is what is served; gaps are as made."""
    for row in client.get(f"{accession}/files?all=true&format=json").rows():
        if row["URI"].endswith(("/gone.txt", ".html")) or any(c in row["URI"] for c in ' #"[{ö'):
            continue
        body = client.get(row["URI"]).body
        assert str(len(body)) == row["Size"], row
        assert row["digest"] in ("", hashlib.md5(body).hexdigest())


def test_gaps_in_the_catalog(client, names):
    """R§2.6: no digest is ""; a missing SIZE comes from the disk; missing files stay listed."""
    rows = {it["URI"].split("/files/")[1]: it for it in client.get(f"{names}?format=json").rows()}
    assert rows["no-digest.txt"]["digest"] == ""
    assert rows["no-size.txt"]["Size"] == "31"
    assert rows["empty.txt"]["Size"] == "0"
    assert rows["a/b/c.txt"]["Name"] == "c.txt"
    assert rows["gone.txt"]["Size"] == "4"
    assert client.get(f"{names}/gone.txt").status == 404
    assert client.get(f"{names}/gone.txt?accept-not-found=true").status == 204


def test_file_beside_a_folder_of_its_name(client, names):
    """R§3.3: NAME.gz on disk is served for a missing NAME."""
    assert client.get(f"{names}/x").body == b"a file beside a folder of its name\n"
    assert client.get(f"{names}/x/y").body == b"below a file's name\n"


def test_conditions(client, accession):
    """R§3.1: mtime decides, tags do not exist."""
    path = f"{accession}/resources/QC/files/qc.csv"
    stamp = client.get(path).headers["Last-Modified"]
    assert client.get(path, If_Modified_Since=stamp).status == 304
    assert client.get(path, If_Modified_Since="Thu, 08 Apr 2021 19:28:44 GMT").status == 200
    assert client.get(path, If_Unmodified_Since="Thu, 08 Apr 2021 19:28:44 GMT").status == 412
    assert client.get(path, If_None_Match="*").status == 200
    assert client.get(path, If_Match='"x"').status == 412


@pytest.mark.parametrize(
    ("wish", "content_range", "body"),
    [
        ("bytes=0-3", "bytes 0-3/16", b"scan"),
        ("bytes=9-", "bytes 9-15/16", b"4,31.5\n"),
        ("bytes=-3", "bytes 13-15/16", b".5\n"),
        ("bytes=0-0", "bytes 0-0/16", b"s"),
    ],
)
def test_ranges(client, accession, wish, content_range, body):
    """R§3.2: 206 with what was asked."""
    answer = client.get(f"{accession}/resources/QC/files/qc.csv", Range=wish)
    assert (answer.status, answer.body) == (206, body)
    assert answer.headers["Content-Range"] == content_range


def test_range_edges(client, accession):
    """R§3.2: several 501, other units ignored, open ones on streams 500, closed ones ignored."""
    path = f"{accession}/resources/QC/files/qc.csv"
    assert client.get(path, Range="bytes=0-1,3-4").status == 501
    assert client.get(path, Range="lines=0-1").status == 200
    assert client.get(path, Range="bytes=0-3", If_Range='"x"').status == 206
    listing = f"{accession}/resources/QC/files?format=json"
    assert client.get(listing, Range="bytes=0-").status == 500
    assert client.get(listing, Range="bytes=-5").status == 500
    assert client.get(listing, Range="bytes=0-4").status == 200


def test_range_past_the_end_is_announced_and_not_sent(server, client, accession):
    """R§3.2: never 416; the transfer comes out short."""
    import http.client

    with pytest.raises(http.client.IncompleteRead) as short:
        client.get(f"{accession}/resources/QC/files/qc.csv", Range="bytes=10-99")
    assert short.value.partial == b",31.5\n"[-6:]
    assert short.value.expected == 90 - 6


def test_names_that_need_encoding(client, names):
    """R§3.3: decoded lookup for GET; the path is a form once it holds %20 or %2B."""
    assert client.get(f"{names}/with%20space.txt").body == b"with space\n"
    assert client.get(f"{names}/plus+plus.txt").body == b"plus\n"
    assert client.get(f"{names}/plus%2Bplus.txt").body == b"plus\n"
    assert client.get(f"{names}/hash%23tag.txt").body == b"hash\n"
    assert client.get(f"{names}/amp&amp.txt").body == b"ampersand\n"
    assert client.get(f"{names}/gr%C3%B6%C3%9Fe.nii").body == b"umlauts, NFC\n"
    assert client.get(f"{names}/quote's%20%22double%22.txt").body == b"quotes\n"
    assert client.get(f"{names}/{'n' * 196}.txt").body == b"200 characters\n"
    assert client.get(f"{names}/plus%2bplus.txt").status == 200  # by the decoded lookup


def test_folders(client, names):
    """R§3.3: with a slash a listing at all depths, without one 404; recursive=false is wrong."""

    def paths(query):
        rows = client.get(f"{names}/{query}").rows()
        return [it["URI"].split("/files/")[1] for it in rows]

    assert client.get(f"{names}/a").status == 404
    assert paths("a/?format=json") == ["a/b/c.txt", "a/b2.txt"]
    assert paths("a/?format=json&recursive=false") == ["a/b/c.txt"]
    assert paths("nothing/?format=json") == []
    with zipfile.ZipFile(io.BytesIO(client.get(f"{names}/a/?format=zip").body)) as packed:
        assert packed.namelist() == ["a/b/c.txt", "a/b2.txt"]


def test_shortcut_stops_at_the_first_catalog(client, accession):
    """R§12.1: a later resource's file is not found."""
    scan = f"{accession}/scans/4/files"
    first = client.get(f"{accession}/scans/4/resources/DICOM/files?format=json").rows()[0]["Name"]
    assert client.get(f"{scan}/{first}").status == 200
    assert client.get(f"{scan}/snap.gif").status == 404


def test_shortcut_folders_and_patterns(client, accession):
    """R§12.1, R§12.2: one match of the first catalog is the file itself, several are 404."""
    first = f"{accession}/files"  # QC
    assert client.send(f"{accession}/resources/QC/files/d/e/one", b"one").status == 200
    assert client.get(f"{first}/d/").body == b"one"
    assert client.get(f"{first}/qc*").body.startswith(b"scan,snr")
    assert client.get(f"{first}/q..csv*").body.startswith(b"scan,snr")
    assert client.get(f"{first}/*").status == 404
    assert client.send(f"{accession}/resources/QC/files/d/two", b"two").status == 200
    assert client.get(f"{first}/d/").status == 404
    with zipfile.ZipFile(io.BytesIO(client.get(f"{first}/d/?format=zip").body)) as packed:
        assert packed.namelist() == ["d/e/one", "d/two"]
    assert client.get(f"{first}/a/b/").status == 404  # in a later catalog
    assert client.delete(f"{accession}/resources/QC/files/d/").status == 200


def test_index_and_filters(client, accession):
    """R§3.3, R§9: the N-th file of a filter; out of range is 404."""
    scan = f"{accession}/scans/4/resources/DICOM/files"
    rows = client.get(f"{scan}?format=json&file_content=RAW").rows()
    assert len(rows) == 8
    assert client.get(f"{scan}?format=json&file_content=NOPE").rows() == []
    assert client.get(f"{scan}?file_content=RAW&index=1").body == client.get(rows[1]["URI"]).body
    assert client.get(f"{scan}?file_content=RAW&index=8").status == 404


def test_locators(client, accession):
    """R§2.6: other columns than URI."""
    row = client.get(f"{accession}/resources/QC/files?format=json&locator=absolutePath").rows()[0]
    assert row["absolutePath"].endswith("/archive/PVT000/arc001/Haofei01_MR1/RESOURCES/QC/qc.csv")
    assert "URI" not in row
    other = f"{accession}/resources/QC/files?format=json&locator="
    assert client.get(f"{other}PROJECTPATH").rows()[0]["projectPath"] == (
        "PVT000/arc001/Haofei01_MR1/RESOURCES/QC/qc.csv"
    )
    assert client.get(f"{other}nonsense").rows()[0]["URI"].endswith("/files/qc.csv")


def test_uris(client, session, accession):
    """R§2.6: ids instead of labels, raw names, the parents as asked for."""
    row = client.get(f"{session}/resources/QC/files?format=json").rows()[0]
    assert row["URI"] == (
        "/data/projects/PVT000/subjects/XNAT_S00001/experiments/XNAT_E00001/resources/6/files/qc.csv"
    )
    row = client.get(f"{accession}/scans/ALL/files?format=json").rows()[0]
    assert row["URI"].startswith("/data/experiments/XNAT_E00001/scans/1/resources/1/files/")
    spaced = client.get(f"{accession}/resources/NAMES/files?format=json").rows()[1]
    assert spaced["URI"].endswith("/files/with space.txt")


def test_zip(client, session):
    """R§3.4: stored, sizes in local headers, names with labels and sanitised type."""
    answer = client.get(f"{session}/scans/6,4/files?format=zip")
    assert answer.headers["Content-Length"] is None
    assert answer.headers["Content-Disposition"] == 'attachment; filename="Haofei01_MR1.zip";'
    with zipfile.ZipFile(io.BytesIO(answer.body)) as packed:
        assert packed.testzip() is None
        infos = packed.infolist()
        folders = {it.filename.rpartition("/")[0] for it in infos}
        assert "Haofei01_MR1/scans/4-Ax_3D_T1/resources/DICOM/files" in folders
        assert "Haofei01_MR1/scans/6-WATER__T1_T2_0_8x0_8/resources/DICOM/files" in folders
        assert {it.compress_type for it in infos} == {zipfile.ZIP_STORED}
        assert not infos[0].flag_bits & 8
    packed8 = client.get(f"{session}/resources/QC/files?format=zip&compression=8").body
    with zipfile.ZipFile(io.BytesIO(packed8)) as packed:
        assert packed.namelist() == ["Haofei01_MR1/resources/QC/files/qc.csv"]
        assert packed.read(packed.namelist()[0]) == b"scan,snr\n4,31.5\n"
        assert packed.infolist()[0].compress_type == zipfile.ZIP_DEFLATED


def test_names_in_the_zip_of_a_path(client, names):
    """R§3.4: a folder's files have their paths, one file its name; the session names the zip."""
    for path, members in (("a/", ["a/b/c.txt", "a/b2.txt"]), ("a/b/", ["c.txt"]),
                          ("a/b/c.txt", ["c.txt"])):  # fmt: skip
        answer = client.get(f"{names}/{path}?format=zip")
        assert answer.headers["Content-Disposition"] == 'attachment; filename="Haofei01_MR1.zip";'
        with zipfile.ZipFile(io.BytesIO(answer.body)) as packed:
            assert packed.namelist() == members


def test_look_inside_a_zip(client, accession):
    """R§3.3: behind `.zip!` or `.zip/` is what it holds; a folder of such a name is unreadable."""
    place = f"{accession}/resources/INSIDE/files"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr("in/a b.txt", b"inside\n")
    assert client.send(f"{place}/foo.ZIP", out.getvalue()).status == 200
    for address in ("foo.ZIP!/in/a%20b.txt", "foo.ZIP/in/a%20b.txt"):
        answer = client.get(f"{place}/{address}")
        assert (answer.status, answer.body) == (200, b"inside\n")
        assert answer.headers["Content-Length"] is None
    assert client.get(f"{place}/foo.ZIP/in/a%20b.txt", Range="bytes=0-").status == 500
    assert client.get(f"{place}/foo.ZIP!/nothing").status == 404
    rows = client.get(f"{place}/foo.ZIP?listContents=true&format=json").rows()
    assert rows == [{"File Name": "in/a b.txt", "Size": "7"}]
    assert client.send(f"{place}/real.zip/a.txt", b"a").status == 200
    assert "real.zip/a.txt" in client.get(f"{place}?format=csv").body.decode()
    assert client.get(f"{place}/real.zip/a.txt").status == 404
    assert client.send(f"{place}/text.jar", b"no archive").status == 200
    assert client.get(f"{place}/text.jar!/a").status == 415


def test_tar(client, session):
    """R§3.4, R§12.6: exact mtimes, mode 060, long names."""
    answer = client.get(f"{session}/resources/NAMES/files?format=tar")
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as packed:
        members = packed.getmembers()
        assert {it.mode for it in members} == {0o060}
        assert members[1].mtime == 1617910126
        assert any(len(it.name) > 200 for it in members)
        assert "Haofei01_MR1/resources/NAMES/files/größe.nii" in packed.getnames()
        assert not any(it.name.endswith("gone.txt") for it in members)  # missing on disk: skipped
    zipped = client.get(f"{session}/resources/NAMES/files?format=tar.gz").body
    assert gzip.decompress(zipped)[:262] == answer.body[:262]


@pytest.mark.parametrize(
    ("structure", "name"),
    [
        ("simplified", "Haofei01_MR1/scans/4/SNAPSHOTS/snap.gif"),
        ("improved", "Haofei01_MR1/scans/4_Ax_3D_T1/SNAPSHOTS/snap.gif"),
        ("legacy", "Haofei01_MR1/SCANS/4/SNAPSHOTS/snap.gif"),
    ],
)
def test_structures(client, session, structure, name):
    """R§3.4, R§12.3."""
    path = f"{session}/scans/4/resources/SNAPSHOTS/files?format=zip&structure={structure}"
    with zipfile.ZipFile(io.BytesIO(client.get(path).body)) as packed:
        assert packed.namelist() == [name]


def test_bulk_of_nothing(client, session):
    """R§3.4."""
    path = f"{session}/resources/EMPTY/files?format=zip"
    assert client.get(path).status == 404
    assert client.get(f"{path}&accept-not-found=true").status == 204


def test_accept_of_files(client, accession):
    """R§12.7: octet-stream is none of the variants."""
    path = f"{accession}/resources/QC/files/qc.csv"
    assert client.get(path, Accept="application/octet-stream").status == 406
    assert client.get(path, Accept="text/html,*/*;q=0.1").status == 200


def test_numeric_ids(client, accession):
    """R§4.4: a number reads a resource wherever it hangs, as far as it is readable."""
    rows = client.get(f"{accession}/resources?all=true&format=json").rows()
    plain = next(it for it in rows if it["label"] == "PLAIN")["xnat_abstractresource_id"]
    assert client.get(f"{accession}/resources/{plain}/files/plain.txt").body == b"PLAIN\n"
    assert client.as_("nobody").get(f"/data/projects/PUB000/resources/{plain}/files").status == 404


def test_unlabelled_and_double_labels(client, accession):
    """R§8: NULL and numeric ids; a double label answers for both."""
    rows = client.get(f"{accession}/resources/NULL/files?format=json").rows()
    assert [it["Name"] for it in rows] == ["unlabelled.txt"]
    assert rows[0]["collection"] == ""
    both = client.get(f"{accession}/resources/TWICE/files?format=json").rows()
    assert [it["Name"] for it in both] == ["first.txt", "second.txt"]


def test_dir(client, accession):
    """R§3.4: the session's directory with catalogs and all."""
    rows = client.get(f"{accession}/DIR?recursive=true&format=json").rows()
    found = {it["Name"]: it for it in rows}
    assert found["RESOURCES/QC/qc.csv"]["Size"] == "16"
    assert "RESOURCES/QC/QC_catalog.xml" in found
    assert client.get(found["RESOURCES/QC/qc.csv"]["URI"]).body == b"scan,snr\n4,31.5\n"
