"""R§1: prefix routing, the wrong-parent trap, and the addresses that answer 500."""

import pytest


def test_unknown_tail_is_the_item(client, session, accession):
    """R§1.1: the longest matching template answers, with the rest as its tail."""
    for path in (f"{accession}/nonsense", "/data/projects/PVT000/experiments/XNAT_E00001/files",
                 "/data/subjects/XNAT_S00001/experiments"):  # fmt: skip
        answer = client.get(f"{path}?format=json")
        assert answer.status == 200, path
        assert "items" in answer.json(), path
    assert client.get(f"{session}/scans/4/nonsense?format=json").json()["items"]


def test_junk_below_a_project_is_400(client):
    """R§1.1."""
    assert client.get("/data/projects/PVT000/junk").status == 400
    assert client.delete("/data/projects/PVT000/junk").status == 400
    assert client.delete("/data/experiments/XNAT_E00002/junk").status == 400


def test_unknown_path_is_404_with_restlets_page(client):
    """R§8: the message stands in the <h3>; the anchor follows the status."""
    answer = client.get("/data/version")
    assert answer.status == 404
    assert answer.body == (
        b"<html>\n<head>\n   <title>Status page</title>\n</head>\n<body>\n"
        b"<h3>The server has not found anything matching the request URI</h3><p>You can get "
        b'technical details <a href="http://www.w3.org/Protocols/rfc2616/rfc2616-sec10.html'
        b'#sec10.4.5">here</a>.<br>\nPlease continue your visit at our <a href="/">home page'
        b"</a>.\n</p>\n</body>\n</html>\n"
    )


@pytest.mark.parametrize(
    ("path", "collection"),
    [
        ("/data/projects/PVT000/subjects/Haofei01/experiments/NOPE/files", "CONSENT"),
        (
            "/data/projects/PVT000/subjects/Haofei01/experiments/Haofei01_MR1/scans/NOPE/files",
            "CONSENT",
        ),
        ("/data/projects/PVT000/subjects/Haofei01/experiments/Haofei01_MR1/assessors/NOPE/files",
         "CONSENT"),
    ],
)  # fmt: skip
def test_wrong_parent_answers_for_its_parent(client, path, collection):
    """R§1.4: on GET an unknown child falls through; the URI shows whose files these are."""
    row = client.get(f"{path}?format=json").rows()[0]
    assert row["collection"] == collection
    assert row["URI"].startswith("/data/projects/PVT000/subjects/XNAT_S00001/resources/")
    assert client.head(path).status == 404


def test_wrong_session_below_a_project(client):
    """R§1.4: `P/experiments/NOPE/resources` are the project's."""
    rows = client.get("/data/projects/PVT000/experiments/NOPE/resources?format=json").rows()
    assert [it["label"] for it in rows] == ["PROTOCOL"]


def test_null_pointers(client, accession):
    """R§1.4: 500 where the real code runs into null; 404 where it does not."""
    assert client.get("/data/experiments/NOPE/files").status == 500
    assert client.get(f"{accession}/scans/NOPE/files").status == 500
    assert client.get("/data/experiments/NOPE/scans").status == 500
    assert client.get("/data/experiments/NOPE/resources").status == 404
    session = "/data/projects/PVT000/subjects/Haofei01/experiments/NOPE"
    assert client.get(f"{session}/scans").status == 404
    assert client.get("/data/experiments/NOPE").status == 404


def test_other_verbs_want_exactly_one(client, session):
    """R§1.4: HEAD, PUT and DELETE on several or unknown scans are 404."""
    assert client.get(f"{session}/scans/ALL/files").status == 200
    for scans in ("ALL", "1,4", "NOPE"):
        assert client.head(f"{session}/scans/{scans}/files").status == 404
        assert client.put(f"{session}/scans/{scans}/resources/R").status == 404
        assert client.delete(f"{session}/scans/{scans}/resources/DICOM").status == 404


def test_unknown_resource_label(client, accession):
    """R§1.4: an empty listing, but 404 for a file or the catalog."""
    listing = client.get(f"{accession}/resources/NOPE/files?format=json")
    assert (listing.status, listing.rows()) == (200, [])
    assert client.get(f"{accession}/resources/NOPE/files/x").status == 404
    assert client.get(f"{accession}/resources/NOPE").status == 404
    assert client.get(f"{accession}/resources/999999/files").status == 404


def test_catalog_is_searched_on_all_levels(client, accession):
    """R§1.4: one match anywhere in the session answers, several are 404."""
    assert b"mpr.txt" in client.get(f"{accession}/resources/MPR").body
    assert client.get(f"{accession}/resources/DICOM").status == 404
    answer = client.get(f"{accession}/scans/4/resources/DICOM")
    assert answer.headers["Content-Type"] == "text/xml"
    assert b"<cat:entry" in answer.body


def test_lists_of_scans(client, session, accession):
    """R§1.3: ALL, `*`, comma lists, types; unknown sessions of a list are dropped."""

    def scans(path):
        return {it["URI"].split("/")[5] for it in client.get(f"{path}?format=json").rows()}

    everything = {"1", "4", "6", "1-MR1"}
    assert scans(f"{session}/scans/ALL/files") == everything
    assert scans(f"{session}/scans/*/files") == everything
    assert scans(f"{session}/scans/1,4/files") == {"1", "4"}
    assert client.get(f"{session}/scans/Ax_3D_T1/files?format=json").rows()
    assert client.get(f"{session}/scans/ALL/resources/DICOM,SNAPSHOTS/files?format=json").rows()
    both = client.get("/data/experiments/XNAT_E00001,XNAT_E00006,NOPE/files?format=json").rows()
    assert {it["collection"] for it in both} >= {"QC", "README"}


def test_everything_of_a_session(client, accession):
    """R§1.3: `all` with any value unites all levels but `in`."""
    for flag in ("all=true", "all=", "all=yes"):
        rows = client.get(f"{accession}/resources?format=json&{flag}").rows()
        labels = {it["label"] for it in rows}
        assert {"DICOM", "QC", "MPR", "RESULT", "PLAIN", ""} <= labels
        assert "INPUT" not in labels
    assert {it["category"] for it in rows} == {
        "resources", "scans", "assessors", "reconstructions"}  # fmt: skip
    own = client.get(f"{accession}/resources?format=json&all=false").rows()
    assert {it["category"] for it in own} == {"resources"}
    assert {it["cat_id"] for it in own} == {"XNAT_E00001"}


def test_in_and_out_and_plain(client, accession):
    """R§1.2: the default is `out`; plain ones show only with the session's all=true."""

    def labels(path):
        return [it["label"] for it in client.get(f"{path}/resources?format=json").rows()]

    assessor = f"{accession}/assessors/Haofei01_QC1"
    assert labels(assessor) == ["RESULT"]
    assert labels(f"{assessor}/out") == ["RESULT"]
    assert labels(f"{assessor}/in") == ["INPUT"]
    assert labels(f"{accession}/reconstructions/R1") == ["MPR"]


def test_variables_stay_encoded(client, session):
    """R§1.1: labels are looked up percent-encoded; a PUT makes a literal `%20`."""
    assert client.put(f"{session}/resources/my%20res").status == 200
    labels = [it["label"] for it in client.get(f"{session}/resources?format=json").rows()]
    assert "my%20res" in labels


@pytest.mark.parametrize(
    "path",
    ["/a;b", "/a%3bb", "/a%2Fb", "/a%5cb", "/a%2eb", "/a%25b", "//a", "/a/../b", "/a/./b"],
)
def test_firewall(client, path):
    """R§4.2: rejected before XNAT, with an error page of the container."""
    answer = client.get(f"/data/projects{path}")
    assert answer.status == 500
    assert answer.body.startswith(b"<!doctype")


def test_scan_ids(client, accession):
    """R§8: scan ids are free text; files below are reached by the plain id."""
    assert client.get(f"{accession}/scans/1-MR1/resources?format=json").rows()
    assert client.get(f"{accession}/scans/5_b/resources?format=json").rows() == []


def test_protected_projects_show_their_title_only(client):
    """R§2.3: visible, but subjects are 403."""
    assert client.put("/data/projects/PROT00?accessibility=protected").status == 200
    nobody = client.as_("nobody")
    assert nobody.get("/data/projects/PROT00?format=json").status == 200
    assert nobody.get("/data/projects/PROT00/subjects").status == 403
    assert nobody.get("/data/projects/PVT000/subjects").status == 404
