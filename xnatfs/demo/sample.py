"""The sample archive: one project with a real series, and awkward neighbours of all kinds.

The same bytes, ids and times in every new archive; made only where the root is empty.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace

from xnatfs.demo import phantom
from xnatfs.demo.catalog import Entry
from xnatfs.demo.objects import Object, Pairs, Resource, timestamp
from xnatfs.demo.site import Site

LOGINS = (
    ("admin", "owner"),
    ("member", "member"),
    ("reader", "collaborator"),
    ("nobody", "no role"),
)
SLICES = {"full": 192, "small": 8}
_EPOCH = 1617910125.0  # 2021-04-08 19:28:45 UTC: when everything was made
# File names that need care on the way through URLs, listings and file systems.
NAMES: Mapping[str, bytes] = {
    "plain.txt": b"plain\n",
    "with space.txt": b"with space\n",
    "plus+plus.txt": b"plus\n",
    "hash#tag.txt": b"hash\n",
    "amp&amp.txt": b"ampersand\n",
    "größe.nii": b"umlauts, NFC\n",
    'quote\'s "double".txt': b"quotes\n",
    "n" * 196 + ".txt": b"200 characters\n",
    "a/b/c.txt": b"nested\n",
    "a/b2.txt": b"a sibling of a folder\n",
    "x": b"a file beside a folder of its name\n",
    "x.gz.json": b"{}\n",
    "empty.txt": b"",
    "no-digest.txt": b"its digest was never computed\n",
    "no-size.txt": b"its size is not in the catalog\n",
    "equals=at@comma,colon:tilde~.txt": b"sub-delims\n",
    "brackets(1)[2]{3}.txt": b"brackets\n",
    "page.html": b"<html><body>a real page</body></html>\n",
}

# What the disk has instead: nothing, fewer bytes, more bytes, another byte.
_DRIFT = {
    f"{name}.bin": f"as catalogued: {name}\n".encode()
    for name in ("whole", "lost", "shorter", "longer", "other")
}


def fill(site: Site, size: str, *, drift: bool) -> None:
    """Fill an empty archive: `full`, `small`, or `none` for users alone; `drift` adds damage."""
    if site.accounts.users.all():
        return
    for name, _role in LOGINS:
        site.accounts.add(name, name, admin=name == "admin")
    if size != "none":
        _Sample(site, SLICES[size]).fill(drift=drift)


class _Sample:
    """Makes the objects, in the order that gives them their ids."""

    def __init__(self, site: Site, slices: int) -> None:
        self._rows = site.tables
        self._archive = site.archive
        self._slices = slices
        self._made = _EPOCH

    def fill(self, *, drift: bool) -> None:
        """Everything."""
        private, second, public = self._projects()
        haofei = self._subject(private, "Haofei01", (("gender", "female"), ("yob", "1984")))
        first = self._session(haofei, "Haofei01_MR1")
        self._scans(first)
        self._beside(private, haofei, first)
        self._assessor(first)
        self._names(first)
        self._session(haofei, "Haofei01_MR2")
        self._session(self._subject(private, "Subject_02"), "Subject_02_PET1", "pet")
        home = self._session(self._subject(second, "S1"), "S1_MR1")
        self._put(home, "NOTES", {"notes.txt": b"from the other project\n"})
        for row, label in ((haofei, "Haofei_shared"), (first, "Shared_MR1")):
            self._rows.objects.put(replace(row, shares=((second.id, label),)))
        readable = self._session(self._subject(public, "Public01"), "Public01_MR1")
        self._put(readable, "README", {"readme.txt": b"anybody may read this\n"})
        if drift:
            self._drift(readable)
        self._stamp()

    def _stamp(self) -> None:
        """All files get the same old mtime, which only depends on their place in the catalog."""
        for resource in self._rows.resources.all():
            for number, entry in enumerate(self._archive.catalog(resource).entries):
                place = self._archive.file(resource, entry.uri)
                for it in (place, place.with_name(place.name + ".gz")):
                    if it.is_file():
                        os.utime(it, (_EPOCH + number, _EPOCH + number))

    def _projects(self) -> list[Object]:
        roles = (("admin", "owner"), ("member", "member"), ("reader", "collaborator"))
        about = (("description", "A private project with one real session"),
                 ("pi_firstname", "Ada"), ("pi_lastname", "Lovelace"))  # fmt: skip
        told = (
            ("PVT000", "Private project", "private", roles, about),
            ("SHARED00", "Second project", "private", roles[:2], ()),
            ("PUB000", "Public project", "public", roles[:1], ()),
        )
        return [
            self._rows.objects.put(
                Object(
                    kind="project", id=it, label=it, project=it, xsi_type="xnat:projectData",
                    fields=(("name", name), ("secondary_ID", it), ("access", access), *more),
                    roles=whose, aliases=("private-zero",) if it == "PVT000" else (),
                    insert_date=timestamp(_EPOCH),
                )
            )
            for it, name, access, whose, more in told
        ]  # fmt: skip

    def _when(self) -> str:
        self._made += 61.62
        return timestamp(self._made)

    def _add(self, kind: str, parent: Object, label: str, xsi_type: str, fields: Pairs) -> Object:
        letters = {"subject": "S", "experiment": "E", "assessor": "E"}
        when = self._when()
        return self._rows.objects.put(
            Object(
                kind=kind, label=label, project=parent.project, parent=parent.key, fields=fields,
                id=self._rows.accession(letters[kind]) if kind in letters
                else self._rows.number(kind),
                xsi_type=xsi_type, insert_date=when, last_modified=when,
            )
        )  # fmt: skip

    def _subject(self, project: Object, label: str, fields: Pairs = ()) -> Object:
        return self._add("subject", project, label, "xnat:subjectData", fields)

    def _session(self, subject: Object, label: str, modality: str = "mr") -> Object:
        fields = (("date", "2021-04-08"), ("time", "19:28:45"), ("scanner", "Phantom"),
                  ("modality", "MR" if modality == "mr" else "PT"))  # fmt: skip
        return self._add("experiment", subject, label, f"xnat:{modality}SessionData", fields)

    def _scan(self, session: Object, name: str, kind: str, quality: str = "usable") -> Object:
        fields = (("type", kind), ("quality", quality), ("series_description", kind))
        return self._add("scan", session, name, "xnat:mrScanData", fields)

    def _scans(self, session: Object) -> None:
        localizer = self._scan(session, "1", "localizer")
        volume = self._scan(session, "4", "Ax_3D_T1")
        self._scan(session, "5_b", "Ax_T2", "questionable")
        odd = self._scan(session, "6", "WATER: T1/T2 0.8x0.8")
        dashed = self._scan(session, "1-MR1", "localizer repeat", "unusable")
        for scan, slices, side in ((localizer, 3, 64), (volume, self._slices, phantom.SIDE)):
            kind = scan.field("type")
            files = phantom.series(slices, number=int(scan.label), description=kind, side=side)
            self._put(scan, "DICOM", files, "DICOM", "RAW")
        self._put(volume, "SNAPSHOTS", {"snap.gif": b"GIF89a;"}, "GIF", "QC")
        for scan in (odd, dashed):
            number = 60 + len(scan.label)
            files = phantom.series(1, number=number, description=scan.label, side=64)
            self._put(scan, "DICOM", files, "DICOM", "RAW")

    def _beside(self, project: Object, subject: Object, session: Object) -> None:
        self._put(session, "QC", {"qc.csv": b"scan,snr\n4,31.5\n"}, "csv", "QC Data")
        self._put(subject, "CONSENT", {"consent.pdf": b"%PDF-1.4\n%%EOF\n"})
        self._put(project, "PROTOCOL", {"protocol.txt": b"the study's protocol\n"})
        about = (("type", "MPR"), ("baseScanType", "Ax_3D_T1"))
        recon = self._add("reconstruction", session, "R1", "xnat:reconstructedImageData", about)
        self._put(recon, "MPR", {"mpr.txt": b"reconstructed\n"}, role="out")
        self._put(session, "", {"unlabelled.txt": b"its resource has no label\n"})
        self._put(session, "TWICE", {"first.txt": b"the first of two\n"})
        self._put(session, "TWICE", {"second.txt": b"the second of two\n"})
        self._put(session, "EMPTY", {})

    def _assessor(self, session: Object) -> None:
        row = self._add("assessor", session, "Haofei01_QC1", "xnat:qcManualAssessorData",
                        (("date", "2021-04-09"),))  # fmt: skip
        for role, label in (("out", "RESULT"), ("in", "INPUT"), ("", "PLAIN")):
            self._put(row, label, {f"{label.lower()}.txt": f"{label}\n".encode()}, role=role)

    def _names(self, session: Object) -> None:
        resource = self._put(session, "NAMES", NAMES)
        # A file `x` and a file `x/y` cannot both lie on a disk: the bytes of `x` are in `x.gz`,
        # which stands in for it.
        place = self._archive.file(resource, "x")
        place.rename(place.with_name("x.gz"))
        place.mkdir()
        (place / "y").write_bytes(b"below a file's name\n")
        base = self._archive.catalog(resource)
        entries = [
            replace(it, digest="") if it.uri == "no-digest.txt"
            else replace(it, size="") if it.uri == "no-size.txt"
            else it
            for it in base.entries
        ]  # fmt: skip
        entries.append(self._entry(resource, "x/y"))
        entries.append(Entry(uri="gone.txt", id="gone.txt", name="gone.txt", size="4"))
        self._archive.rewrite(resource, entries, base)
        self._archive.measure(resource)

    def _drift(self, session: Object) -> None:
        """A resource whose catalog tells of other files than the disk has, and one of few words."""
        resource = self._put(session, "DRIFT", _DRIFT)
        self._archive.file(resource, "uncatalogued.bin").write_bytes(b"on disk only\n")
        self._archive.file(resource, "lost.bin").unlink()
        self._archive.file(resource, "shorter.bin").write_bytes(b"cut")
        self._archive.file(resource, "longer.bin").write_bytes(_DRIFT["longer.bin"] * 2)
        self._archive.file(resource, "other.bin").write_bytes(b"O" + _DRIFT["other.bin"][1:])
        resource = self._put(session, "UNDIGESTED", _DRIFT)
        base = self._archive.catalog(resource)
        self._archive.rewrite(resource, [replace(it, digest="") for it in base.entries], base)

    def _entry(self, resource: Resource, path: str) -> Entry:
        made = self._archive.entry(resource, path, "admin", "1")
        return replace(made, created_time=timestamp(_EPOCH))

    def _put(
        self,
        row: Object,
        label: str,
        files: Mapping[str, bytes] | Iterable[tuple[str, bytes]],
        format_: str = "",
        content: str = "",
        *,
        role: str = "",
    ) -> Resource:
        """A resource with these files, catalogued in this order."""
        resource = self._archive.create(
            self._rows.holder(row, role), label, "admin", folder_name="unlabelled",
            format=format_, content=content,
        )  # fmt: skip
        resource = self._rows.resources.put(replace(resource, insert_date=self._when()))
        base = self._archive.catalog(resource)
        entries = []
        for path, data in files.items() if isinstance(files, Mapping) else files:
            place = self._archive.file(resource, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
            entries.append(replace(self._entry(resource, path), format=format_, content=content))
        self._archive.rewrite(resource, entries, base)
        self._archive.measure(resource)
        return resource
