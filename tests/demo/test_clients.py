"""Programs that others wrote, unmodified: curl; pyxnat, xnatpy and xnatctl where installed."""

import hashlib
import importlib.util
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path

import pytest

SESSION = "/data/projects/PVT000/subjects/Haofei01/experiments/Haofei01_MR1"


def curl(*arguments):
    done = subprocess.run(["curl", "-s", "-S", *arguments], capture_output=True, check=True)
    return done.stdout


def test_curl(server, tmp_path):
    """The vendor's recipes: session by cookie, download a scan, upload in both ways, log out."""
    url = server.url
    jar = ["-b", tmp_path / "jar", "-c", tmp_path / "jar"]
    session = curl("-u", "member:member", *jar, f"{url}/data/JSESSION").decode()
    assert len(session) == 32
    curl(*jar, f"{url}{SESSION}/scans/4/files?format=zip", "-o", tmp_path / "scan.zip")
    with zipfile.ZipFile(tmp_path / "scan.zip") as packed:
        assert len(packed.namelist()) == 9
        assert packed.testzip() is None
    (tmp_path / "big.nii").write_bytes(b"0123456789" * 300_000)  # over 1 MB: Expect: 100-continue
    target = f"{url}{SESSION}/resources/CURL/files"
    upload = ["-F", f"file=@{tmp_path / 'big.nii'}"]
    assert curl(*jar, "-X", "PUT", *upload, f"{target}/a.nii") == b""
    assert curl(*jar, "-T", tmp_path / "big.nii", f"{target}/b.nii?inbody=true") == b""
    for name in ("a.nii", "b.nii"):
        assert curl(*jar, f"{target}/{name}") == (tmp_path / "big.nii").read_bytes()
    assert b"a.nii" in curl(*jar, f"{target}?format=csv")
    curl(*jar, "-X", "DELETE", f"{url}/data/JSESSION")
    assert b"HTTP Status 401" in curl(*jar, f"{url}/data/projects")


def test_schemas_are_well_formed(client):
    assert client.get("/xapi/schemas?format=json").json() == ["xdat", "xnat"]
    for name in ("xdat", "xnat"):
        ET.fromstring(client.get(f"/xapi/schemas/{name}").body)
    rows = client.get("/data/search/elements?format=json").rows()
    assert "xnat:mrSessionData" in [it["ELEMENT_NAME"] for it in rows]


PYXNAT = """
import pyxnat, sys, os
url, folder = sys.argv[1:]
site = pyxnat.Interface(server=url, user="admin", password="admin")
assert list(site.select.projects().get()) == ["PVT000", "SHARED00", "PUB000"]
project = site.select.project("PVT000")
session = project.subject("Haofei01").experiment("Haofei01_MR1")
assert session.id() == "XNAT_E00001"
assert "4" in [it.id() for it in session.scans()]
resource = session.scan("4").resource("DICOM")
assert len(resource.files().get()) == 8
one = resource.file(resource.files().get()[0])
assert os.path.getsize(one.get(folder + "/one.dcm")) == int(one.size())
resource.get(folder, extract=False)
made = session.resource("PYXNAT")
assert not made.exists()
made.create()
made.file("sub/one.dcm").put(folder + "/one.dcm", overwrite=True)
assert made.files().get() == ["one.dcm"]
made.put([folder + "/one.dcm"], extract=True)
made.delete()
other = project.subject("PYXNAT").experiment("PYXNAT_MR")
other.create(experiments="xnat:mrSessionData")
other.scan("1").create(scans="xnat:mrScanData")
other.attrs.set("date", "2020-01-01")
assert other.attrs.get("date") == "2020-01-01"
project.subject("PYXNAT").delete()
site.disconnect()
"""

XNATPY = """
import xnat, sys, os
url, folder = sys.argv[1:]
with xnat.connect(url, user="admin", password="admin") as site:
    assert [it.id for it in site.projects.values()] == ["PVT000", "SHARED00", "PUB000"]
    project = site.projects["PVT000"]
    session = project.subjects["Haofei01"].experiments["Haofei01_MR1"]
    resource = session.scans["4"].resources["DICOM"]
    assert len(resource.files) == 8
    list(resource.files.values())[0].download(folder + "/one.dcm", verbose=False)
    resource.download(folder + "/all.zip", verbose=False)
    session.scans["4"].download_dir(folder + "/tree", verbose=False)
    made = session.create_resource("XNATPY")
    made.upload(folder + "/one.dcm", "sub/one.dcm")
    assert list(made.files.keys()) == ["sub/one.dcm"]
    os.makedirs(folder + "/up/a")
    os.rename(folder + "/one.dcm", folder + "/up/a/two.dcm")
    made.upload_dir(folder + "/up")
    made.clearcache()
    assert set(made.files.keys()) == {"sub/one.dcm", "a/two.dcm"}
    subject = site.classes.SubjectData(parent=project, label="XNATPY")
    site.classes.MrSessionData(parent=subject, label="XNATPY_MR")
    site.delete("/data/projects/PVT000/subjects/XNATPY")
"""


@pytest.mark.parametrize(("module", "code"), [("pyxnat", PYXNAT), ("xnat", XNATPY)])
def test_python_clients(server, client, tmp_path, module, code):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    arguments = [sys.executable, "-c", code, server.url, str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not [it for it in server.log if it.status >= 400 and it.path != "/data/version"]


XNATCTL = """
auth login
whoami
health ping
project show PVT000
project access PVT000
project users PVT000
subject list -P PVT000
session show -E XNAT_E00001
scan list -E XNAT_E00001
scan download -E XNAT_E00001 --scans 4 --out scans --extract
session download -P PVT000 -E Haofei01_MR1 --out sessions --extract
resource upload XNAT_E00001 CTL up
resource upload XNAT_E00001 CTL_ONE up/two.txt
resource show XNAT_E00001 CTL
resource download XNAT_E00001 CTL -f ctl.zip
project create CTL000 --accessibility protected
project grant CTL000 reader --role member -y
session share -P PVT000 -E Haofei01_MR2 --into CTL000 -y
session unshare -P PVT000 -E Haofei01_MR2 --from CTL000 -y
auth logout
"""


def test_xnatctl(server, client, tmp_path):
    """Its `--verify` is left out: it wants labels in the URIs of files, R§2.6 has numbers there."""
    program = Path(sys.executable).with_name("xnatctl")
    if not program.exists():
        pytest.skip("xnatctl is not installed")
    (tmp_path / "up/a").mkdir(parents=True)
    (tmp_path / "up/a/one.txt").write_text("one\n")
    (tmp_path / "up/two.txt").write_text("two\n")
    login = {"XNAT_URL": server.url, "XNAT_USER": "admin", "XNAT_PASS": "admin"}
    for line in XNATCTL.strip().splitlines():
        done = subprocess.run(
            [program, *line.split()], capture_output=True, text=True, check=False, cwd=tmp_path,
            env=os.environ | login | {"HOME": str(tmp_path)},
        )  # fmt: skip
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
    with zipfile.ZipFile(tmp_path / "ctl.zip") as packed:
        names = {it.rpartition("/files/")[2]: packed.read(it) for it in packed.namelist()}
    assert names == {"a/one.txt": b"one\n", "two.txt": b"two\n"}
    assert client.get("/data/experiments/XNAT_E00001/resources/CTL_ONE/files/two.txt").body
    listed = client.get(f"{SESSION}/scans/4/files?format=json").rows()
    for folder in ("scans", "sessions"):
        found = {it.name: it.read_bytes() for it in (tmp_path / folder).rglob("DICOM/files/*")}
        for row in listed:
            if row["collection"] == "DICOM":
                assert hashlib.md5(found[row["Name"]]).hexdigest() == row["digest"]
    assert client.as_("reader").put("/data/projects/CTL000/subjects/S").status == 201
    assert not [it for it in server.log if it.status >= 400]
