"""R§2: the shapes of listings; key order as recorded from live servers."""

import csv
import io
import xml.etree.ElementTree as ET

from xnatfs.demo.tables import java_order


def keys(answer):
    return list(answer.rows()[0])


def test_json_key_order_is_that_of_recorded_bodies(client, session):
    """R§2.1: every live server shows the order of a Java HashMap."""
    assert keys(client.get("/data/projects/PVT000/subjects?format=json")) == [
        "insert_date", "project", "ID", "label", "insert_user", "URI"]  # fmt: skip
    assert keys(client.get("/data/projects/PVT000/experiments?format=json")) == [
        "date", "xsiType", "xnat:subjectassessordata/id", "insert_date", "project", "ID", "label",
        "URI"]  # fmt: skip
    assert keys(client.get(f"{session}/scans?format=json")) == [
        "xsiType", "xnat_imagescandata_id", "note", "series_description", "ID", "type", "URI",
        "quality"]  # fmt: skip
    assert keys(client.get(f"{session}/resources?format=json")) == [
        "file_count", "xnat_abstractresource_id", "cat_desc", "cat_id", "format", "label",
        "category", "element_name", "file_size", "content", "tags"]  # fmt: skip
    assert keys(client.get(f"{session}/resources/QC/files?format=json")) == [
        "file_content", "Size", "file_tags", "cat_ID", "digest", "collection", "URI",
        "file_format", "Name"]  # fmt: skip


def test_java_order_puts_item_parts_as_recorded():
    assert java_order(["data_fields", "meta", "children"]) == ["children", "meta", "data_fields"]


def test_cells_are_strings_and_totals_stand_behind(client, session):
    """R§2.1: all cells and properties are strings; resources have a title, files no total."""
    answer = client.get(f"{session}/resources?format=json")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Content-Length"] is None
    result = answer.json()["ResultSet"]
    assert all(isinstance(cell, str) for row in result["Result"] for cell in row.values())
    assert result["totalRecords"] == str(len(result["Result"]))
    assert result["title"] == "Resources"
    assert answer.body.endswith(b'], "totalRecords": "6", "title": "Resources"}}')
    files = client.get(f"{session}/files?format=json").json()["ResultSet"]
    assert "totalRecords" not in files
    assert files["title"] == "Files"
    assert files["Columns"] == [{"key": "URI", "serverRoot": ""}]


def test_empty_listing(client):
    """R§2.1: 200 with an empty result."""
    answer = client.get("/data/experiments/XNAT_E00003/resources?format=json")
    assert answer.body == b'{"ResultSet":{"Result":[], "totalRecords": "0", "title": "Resources"}}'


def test_csv_xml_html_text(client):
    """R§2.1: every format of a list; CSV has the columns that were asked for."""
    path = "/data/projects?columns=ID,xsiType"
    table = list(csv.reader(io.StringIO(client.get(f"{path}&format=csv").body.decode())))
    assert table[0] == ["ID", "xsiType", "URI"]
    assert table[1] == ["PVT000", "xnat:projectData", "/data/projects/PVT000"]
    tree = ET.fromstring(client.get(f"{path}&format=xml").body)
    assert [it.text for it in tree.iter("column")] == ["ID", "xsiType", "URI"]
    assert client.get(f"{path}&format=html").headers["Content-Type"] == "text/html"
    assert client.get(f"{path}&format=txt").body.startswith(b"ID\txsiType\tURI\n")


def test_negotiation(client, session):
    """R§2.1: format beats Accept; items know HTML and XML only; JSON for them is 406."""
    assert client.get("/data/projects", Accept="text/xml").body.startswith(b"<?xml")
    assert client.get("/data/projects", Accept="*/*").body.startswith(b'{"ResultSet"')
    assert client.get("/data/projects", Accept="image/png").status == 406
    assert client.get(session).headers["Content-Type"] == "text/html"
    assert client.get(f"{session}?format=json", Accept="application/json").status == 406
    assert client.get(f"{session}?format=json", Accept="*/*").json()["items"]
    assert client.get("/data/JSESSION", Accept="application/json").status == 406


def test_sort_and_pages(client):
    """R§2.1: sortBy, sortOrder; limit and offset drop totalRecords."""
    path = "/data/projects/PVT000/experiments?format=json"
    labels = [it["label"] for it in client.get(f"{path}&sortBy=label&sortOrder=DESC").rows()]
    assert labels == sorted(labels, reverse=True)
    page = client.get(f"{path}&limit=1&offset=1").json()["ResultSet"]
    assert [it["label"] for it in page["Result"]] == ["Haofei01_MR2"]
    assert "totalRecords" not in page
    assert len(client.get(f"{path}&limit=*").rows()) == 3


def test_columns_of_experiments(client):
    """R§1.3: asked columns replace the defaults; unknown aliases are ignored."""
    asked = "ID,label,xsiType,subject_ID,subject_label,date,insert_date,last_modified,nonsense"
    row = client.get(f"/data/projects/PVT000/experiments?format=json&columns={asked}").rows()[0]
    assert row["subject_label"] == "Haofei01"
    assert row["URI"] == "/data/experiments/XNAT_E00001"
    assert row["xnat:subjectassessordata/id"] == "XNAT_E00001"
    assert "nonsense" not in row


def test_column_of_a_derived_type_restricts_rows(client):
    """R§1.3: `session_ID` or `modality` turn the list into one of image sessions."""
    row = client.get("/data/projects/PVT000/experiments?format=json&columns=ID,modality").rows()[0]
    assert "xnat:imagesessiondata/id" in row


def test_type_filter_names_the_root_key(client):
    """R§2.4: the root key follows the filter; a type that does not exist gives an empty body."""
    rows = client.get("/data/experiments?format=json&xsiType=xnat:mrSessionData").rows()
    assert {it["xsiType"] for it in rows} == {"xnat:mrSessionData"}
    assert rows[0]["xnat:mrsessiondata/id"] == "XNAT_E00001"
    nothing = client.get("/data/experiments?format=json&xsiType=xnat:nonsense")
    assert (nothing.status, nothing.body) == (200, b"")


def test_scans_and_their_resources_in_one_request(client):
    """R§1.3: one row per scan and resource; a scan without resources has an empty label."""
    asked = "ID,label,xnat:imagescandata/id,xnat:imagescandata/type,xnat:imagescandata/file/label"
    path = "/data/experiments?format=json&project=PVT000&xsiType=xnat:imageSessionData"
    rows = client.get(f"{path}&columns={asked}").rows()
    pairs = [
        (it["xnat:imagescandata/id"], it["xnat:imagescandata/file/label"])
        for it in rows
        if it["label"] == "Haofei01_MR1"
    ]
    assert ("4", "DICOM") in pairs
    assert ("4", "SNAPSHOTS") in pairs
    assert ("5_b", "") in pairs


def test_filters(client):
    """R§2.1: an alias as parameter filters; comma is OR, `*` is LIKE, dates are ranges."""
    path = "/data/projects/PVT000/experiments?format=json"
    assert len(client.get(f"{path}&label=Haofei01_MR1").rows()) == 1
    assert len(client.get(f"{path}&label=Haofei01_MR1,Haofei01_MR2").rows()) == 2
    assert len(client.get(f"{path}&label=Haofei*").rows()) == 2
    assert len(client.get(f"{path}&date=01/01/2021-12/31/2021").rows()) == 3
    assert len(client.get(f"{path}&date=01/01/2020-12/31/2020").rows()) == 0


def test_assessors(client, session, accession):
    """R§2.5: their URI is that of an experiment; the project's list never has them."""
    row = client.get(f"{session}/assessors?format=json").rows()[0]
    assert row["URI"] == "/data/experiments/XNAT_E00002"
    assert row["session_label"] == "Haofei01_MR1"
    labels = [it["label"] for it in client.get("/data/projects/PVT000/experiments").rows()]
    assert "Haofei01_QC1" not in labels
    assert client.get(f"{accession}/assessors?format=json").rows()[0]["label"] == "Haofei01_QC1"


def test_reconstructions(client, session):
    """R§2.5."""
    row = client.get(f"{session}/reconstructions?format=json").rows()[0]
    assert (row["ID"], row["baseScanType"]) == ("R1", "Ax_3D_T1")


def test_projects_by_right(client):
    """R§10.7: restrict, permissions and accessible as hints on rights."""

    def ids(user, query):
        rows = client.as_(user).get(f"/data/projects?format=json&{query}").rows()
        return [it.get("ID") or it["id"] for it in rows]

    assert ids("reader", "restrict=edit") == []
    assert ids("member", "restrict=edit") == ["PVT000", "SHARED00"]
    assert ids("member", "restrict=delete") == []
    assert ids("member", "permissions=edit&dataType=xnat:mrSessionData") == ["PVT000", "SHARED00"]
    assert ids("reader", "accessible=true") == ["PVT000", "PUB000"]
    row = client.as_("reader").get("/data/projects?format=json&accessible=true").rows()[0]
    assert row["role_reader"] == "Collaborators"
    assert ids("nobody", "") == ["PUB000"]


def test_labels_of_shared_objects(client):
    """R§2.3, R§2.4: in the sharing project its own labels show, `project` is rewritten."""
    row = client.get("/data/projects/SHARED00/subjects?format=json").rows()[-1]
    assert {it["label"] for it in client.get("/data/projects/SHARED00/subjects").rows()} == {
        "S1",
        "Haofei_shared",
    }
    assert row["ID"]
    columns = "ID,label,project,subject_label"
    rows = client.get(f"/data/projects/SHARED00/experiments?format=json&columns={columns}").rows()
    shared = next(it for it in rows if it["ID"] == "XNAT_E00001")
    assert (shared["label"], shared["project"]) == ("Shared_MR1", "SHARED00")
    assert shared["subject_label"] == "Haofei_shared"
    by_label = "/data/projects/SHARED00/subjects/Haofei_shared/experiments/Shared_MR1/scans"
    assert len(client.get(f"{by_label}?format=json").rows()) == 5


def test_item_json(client, session):
    """R§2.7: native types, `ID` and `id`, children with scans and their resources."""
    item = client.get(f"{session}?format=json").json()["items"][0]
    assert list(item) == ["children", "meta", "data_fields"]
    assert item["meta"]["xsi:type"] == "xnat:mrSessionData"
    assert item["meta"]["isHistory"] is False
    assert item["data_fields"]["ID"] == item["data_fields"]["id"] == "XNAT_E00001"
    children = {it["field"]: it["items"] for it in item["children"]}
    scan = next(it for it in children["scans/scan"] if it["data_fields"]["ID"] == "4")
    resource = scan["children"][0]["items"][0]["data_fields"]
    assert resource["file_count"] == 8
    xml = ET.fromstring(client.get(f"{session}?format=xml").body)
    assert xml.get("ID") == "XNAT_E00001"


def test_twins(client):
    """R§1.1: /REST is /data; object routes also exist below /data/archive."""
    expected = client.get("/data/projects?format=json").body
    assert client.get("/REST/projects?format=json").body == expected
    assert client.get("/data/archive/projects?format=json").body == expected
    assert client.get("/data/archive/JSESSION").status == 404


def test_a_path_with_many_values_is_a_row_for_each(client):
    """R§1.3: any column with a `/` joins; what has none of it shows a blank."""
    path = "xnat:imagesessiondata/reconstructions/reconstructedimage/id"
    asked = f"/data/experiments?format=json&xsiType=xnat:imageSessionData&columns=ID,{path}"
    made = {it["ID"]: it[path] for it in client.get(asked).rows()}
    assert made["XNAT_E00001"] == "R1"
    assert "" in made.values()
    (row,) = client.get(f"{asked}&ID=XNAT_E00001").rows()
    assert (row["ID"], row[path]) == ("XNAT_E00001", "R1")
    path = "xnat:subjectdata/resources/resource/xnat_abstractresource_id"
    rows = client.get(f"/data/subjects?format=json&columns=ID,{path}").rows()
    for row in rows:
        held = client.get(f"/data/subjects/{row['ID']}/resources?format=json").rows()
        numbers = [it["xnat_abstractresource_id"] for it in held] or [""]
        assert row[path] in numbers
        assert len([it for it in rows if it["ID"] == row["ID"]]) == len(numbers)
    assert {it[path] == "" for it in rows} == {True, False}


def test_the_assessors_of_some_sessions(client):
    """R§1.3, R§2.1: a filter is any alias, a comma means or."""
    asked = "/data/experiments?format=json&xsiType=xnat:imageAssessorData&columns=ID,session_ID"
    rows = client.get(f"{asked}&session_ID=XNAT_E00001,XNAT_E00003").rows()
    assert [it["session_ID"] for it in rows] == ["XNAT_E00001"] * len(rows)
    assert rows
    assert client.get(f"{asked}&session_ID=XNAT_E00003").rows() == []
