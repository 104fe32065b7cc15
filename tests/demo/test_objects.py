"""R§5.3: objects made, renamed, shared and removed."""

import pytest

P = "/data/projects/PVT000"


def test_subject(client):
    """201 new, 200 known, body is the accession id."""
    made = client.put(f"{P}/subjects/New01?gender=male")
    assert made.status == 201
    assert made.body.startswith(b"XNAT_S")
    assert made.headers["Content-Type"] == "text/plain"
    again = client.put(f"{P}/subjects/New01")
    assert (again.status, again.body) == (200, made.body)
    assert client.as_("reader").put(f"{P}/subjects/New02").status == 403
    assert client.as_("nobody").put(f"{P}/subjects/New02").status == 404
    item = client.get(f"{P}/subjects/New01?format=json").json()["items"][0]
    assert item["data_fields"]["gender"] == "male"
    assert client.as_("member").delete(f"{P}/subjects/New01").status == 403
    assert client.delete(f"{P}/subjects/New01").status == 200
    assert client.get(f"{P}/subjects/New01").status == 404
    assert client.delete(f"{P}/subjects/New01").status == 404


def test_session_makes_its_subject(client):
    """201 with the id; 417 without a type; the subject appears by itself."""
    path = f"{P}/subjects/Auto01/experiments/Auto01_MR1"
    assert client.put(path).status == 417
    made = client.put(f"{path}?xsiType=xnat:mrSessionData&date=2021-05-06")
    assert made.status == 201
    assert client.put(path).body == made.body
    row = next(it for it in client.get(f"{P}/experiments?format=json").rows()
               if it["label"] == "Auto01_MR1")  # fmt: skip
    assert row["date"] == "2021-05-06"
    assert "Auto01" in [it["label"] for it in client.get(f"{P}/subjects").rows()]
    accession = made.body.decode()
    assert client.as_("member").delete(f"/data/experiments/{accession}").status == 403
    assert client.delete(f"/data/experiments/{accession}").status == 200
    assert client.get(f"/data/experiments/{accession}").status == 404


def test_scan(client, session):
    """200 empty; 417 without type; 409 for another type; 400 for the abstract one."""
    path = f"{session}/scans/77"
    assert client.put(path).status == 417
    assert client.put(f"{path}?xsiType=xnat:imageScanData").status == 400
    made = client.put(f"{path}?xsiType=xnat:mrScanData&xnat:mrScanData/type=T2")
    assert (made.status, made.body) == (200, b"")
    assert client.put(f"{path}?xsiType=xnat:petScanData").status == 409
    row = next(it for it in client.get(f"{session}/scans").rows() if it["ID"] == "77")
    assert row["type"] == "T2"
    assert client.delete(f"{path}/junk").status == 400
    assert client.as_("member").delete(path).status == 403
    assert client.delete(path).status == 200
    assert client.get(f"{path}?format=json").status == 404


def test_scan_ids_are_stored_as_sent(client, session):
    """R§12.4: `a%20b` is stored so; below the scan it is decoded and not found."""
    assert client.put(f"{session}/scans/a%20b?xsiType=xnat:mrScanData").status == 200
    assert "a%20b" in [it["ID"] for it in client.get(f"{session}/scans").rows()]
    assert client.put(f"{session}/scans/a%20b/resources/R").status == 404


def test_reconstruction_and_assessor(client, session):
    """200, and 201 with the id."""
    assert client.put(f"{session}/reconstructions/R9").status == 200
    assert client.send(f"{session}/reconstructions/R9/out/resources/X/files/a", b"x").status == 200
    assert client.delete(f"{session}/reconstructions/R9").status == 200
    made = client.put(f"{session}/assessors/QC9?xsiType=xnat:qcManualAssessorData")
    assert made.status == 201
    assert client.send(f"{session}/assessors/QC9/resources/X/files/a", b"x").status == 200
    assert client.get(f"{session}/assessors/QC9/out/resources/X/files/a").body == b"x"
    assert client.delete(f"/data/experiments/{made.body.decode()}").status == 200
    assert client.get(f"{session}/assessors/QC9?format=json").status == 404


@pytest.fixture
def own(client, request):
    """A session of its own with a file on each level."""
    name = request.node.name[5:30]
    path = f"{P}/subjects/{name}/experiments/{name}_MR"
    assert client.put(f"{path}?xsiType=xnat:mrSessionData").status == 201
    assert client.put(f"{path}/scans/1?xsiType=xnat:mrScanData").status == 200
    assert client.put(f"{path}/assessors/{name}_A?xsiType=xnat:qcManualAssessorData").status == 201
    for place in ("", "/scans/1", f"/assessors/{name}_A"):
        assert client.send(f"{path}{place}/resources/R/files/d/f", place.encode()).status == 200
    return path


def test_rename_of_a_session(client, own, server):
    """R§9 TestRename: everything stays readable at the new label; the id stays."""
    new = own + "_NEW"
    label = new.rsplit("/", 1)[1]
    assert client.as_("reader").put(f"{own}?label={label}").status == 403
    before = client.get(f"{own}?format=json").json()["items"][0]["data_fields"]["ID"]
    assert client.put(f"{own}?label={label}").status == 200
    assert client.get(own).status == 404
    assert client.get(f"{new}?format=json").json()["items"][0]["data_fields"]["ID"] == before
    assert client.get(f"{new}/scans/1/resources/R/files/d/f").body == b"/scans/1"
    assert (server.site.archive.root / f"archive/PVT000/arc001/{label}/SCANS/1/R/d/f").is_file()
    assert client.put(f"{new}?label=Haofei01_MR1").status == 409


def test_rename_of_a_subject(client, own):
    subject = own.partition("/experiments")[0]
    label = subject.rsplit("/", 1)[1] + "_NEW"
    assert client.send(f"{subject}/resources/R/files/s", b"s").status == 200
    assert client.put(f"{subject}?label={label}").status == 200
    moved = subject.rsplit("/", 1)[0] + f"/{label}"
    assert client.get(f"{moved}/resources/R/files/s").body == b"s"


def test_sharing(client, own):
    """R§5.3: share, see it there, 409 twice, unshare; the owner decides on writing."""
    shared = f"{own}/projects/SHARED00"
    assert client.put(f"{shared}?label=There").status == 200
    again = client.put(shared)
    assert again.status == 409
    assert b"<h3>Already assigned to project:SHARED00</h3>" in again.body
    assert len(client.get(f"{own}/projects?format=json").rows()) == 2
    subject = own.split("/")[5]
    there = f"/data/projects/SHARED00/subjects/{subject}/experiments/There"
    assert client.get(f"{there}/resources/R/files/d/f").body == b""
    assert client.delete(there).status == 200  # from a sharing project: un-share
    assert client.get(there).status == 404
    assert client.get(own).status == 200
    assert client.delete(shared).status == 404


def test_project(client):
    """R§5.3: 200; bad characters 417; alias; deleting one leaves others alone."""
    assert client.put("/data/projects/NEW000?alias=new-alias").status == 200
    assert client.get("/data/projects/new-alias?format=json").status == 200
    assert client.put("/data/projects/bad!name").status == 417
    assert client.as_("reader").put("/data/projects/NEW000").status == 403
    assert client.put("/data/projects/NEW000/users/Members/reader").status == 200
    assert client.as_("reader").put("/data/projects/NEW000/subjects/S").status == 201
    assert client.as_("reader").delete("/data/projects/NEW000").status == 403
    assert client.delete("/data/projects/NEW000").status == 200
    assert client.get("/data/projects/NEW000").status == 404
    assert client.delete("/data/projects/NEW000").status == 400
    assert client.get(f"{P}/resources/PROTOCOL/files/protocol.txt").status == 200


def test_names_of_projects(client):
    """R§5.3: 409 for another's name, secondary id or alias; 403 for the id of a deleted one."""
    assert client.put("/data/projects/GONE00?name=Gone&alias=gone-alias").status == 200
    for clash in ("name=Gone", "alias=gone-alias", "secondary_ID=GONE00", "name=Private%20project"):
        assert client.put(f"/data/projects/CLASH0?{clash}").status == 409, clash
    assert client.get("/data/projects/CLASH0").status == 404
    assert client.put("/data/projects/GONE00?name=Gone").status == 200  # its own
    assert client.delete("/data/projects/GONE00?removeFiles=true").status == 200
    assert client.put("/data/projects/GONE00").status == 403
    assert client.put("/data/projects/CLASH0?name=Gone").status == 200


def test_groups_of_a_project(client):
    """R§5.4: by the group's id or name; what is none is 404, and nobody gets a role by it."""
    assert client.put("/data/projects/GROUPS?accessibility=protected").status == 200
    assert client.get("/data/projects/GROUPS/accessibility").body == b"protected"
    assert client.put("/data/projects/GROUPS/users/GROUPS_collaborator/nobody").status == 200
    assert client.put("/data/projects/GROUPS/users/Strangers/reader").status == 404
    users = {
        it["login"]: it["displayname"] for it in client.get("/data/projects/GROUPS/users").rows()
    }
    assert users == {"admin": "Owners", "nobody": "Collaborators"}
    assert client.as_("nobody").get("/data/projects/GROUPS/subjects").status == 200
    assert client.as_("nobody").put("/data/projects/GROUPS/subjects/S").status == 403


def test_quarantine(client, own):
    """R§5.3: in quarantine it does not exist for those who may not end that."""
    member = client.as_("member")
    accession = client.get(f"{own}?format=json").json()["items"][0]["data_fields"]["ID"]
    file = f"/data/experiments/{accession}/scans/1/resources/R/files/d/f"
    assert member.put(f"{own}?quarantine=true").status == 403
    assert client.put(f"{own}?quarantine=true").status == 200
    assert client.get(file).body == b"/scans/1"
    assert member.get(own).status == 404
    assert member.head(file).status == 404
    assert member.send(f"{own}/resources/R/files/new", b"x").status == 404
    assert accession not in [it["ID"] for it in member.get(f"{P}/experiments").rows()]
    assert member.put(f"{own}?xsiType=xnat:mrSessionData").status == 409  # the label is taken
    assert client.put(f"{own}?activate=true").status == 200
    assert member.get(file).body == b"/scans/1"


def test_files_stay_without_remove_files(client, own, server):
    """R§5.3: an object that is deleted so is in the way of a rename, as its folder is there."""
    folder = server.site.archive.root / f"archive/PVT000/arc001/{own.rsplit('/', 1)[1]}"
    other = own + "_2"
    assert client.put(f"{other}?xsiType=xnat:mrSessionData").status == 201
    assert client.send(f"{other}/resources/R/files/a", b"x").status == 200
    assert client.delete(own).status == 200
    assert client.get(own).status == 404
    assert (folder / "SCANS/1/R/d/f").read_bytes() == b"/scans/1"
    assert client.put(f"{other}?label={own.rsplit('/', 1)[1]}").status == 409
    assert client.delete(f"{other}?removeFiles=true").status == 200
    assert not folder.with_name(folder.name + "_2").exists()


def test_post_to_a_list(client):
    """R§5.3: the body is the absolute new URI; a known label is 409."""
    made = client.ask("POST", f"{P}/subjects?label=Posted", b"")
    assert made.status == 201
    assert made.body.decode() == made.headers["Location"]
    assert "/data/subjects/XNAT_S" in made.headers["Location"]
    assert client.ask("POST", f"{P}/subjects?label=Posted", b"").status == 409
    assert client.ask("POST", f"{P}/subjects/Posted/experiments?label=X", b"").status == 417


def test_role_decides(client, session, accession):
    """R§5.4: 404 for what one may not read, 403 for what one may not do."""
    nobody, reader, member = (client.as_(it) for it in ("nobody", "reader", "member"))
    assert nobody.get(session).status == 404
    assert nobody.get(f"{accession}/resources").status == 404
    assert reader.get(f"{accession}?format=json").status == 200
    assert reader.put(f"{session}/scans/9?xsiType=xnat:mrScanData").status == 403
    assert member.put(f"{session}/scans/9?xsiType=xnat:mrScanData").status == 200
    assert member.delete(f"{session}/scans/9").status == 403
    assert nobody.get("/data/projects/PUB000/experiments").status == 200
