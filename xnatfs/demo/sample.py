"""The sample archive: one project with a real series, and awkward neighbours of all kinds.

The same bytes, ids and times in every new archive; made only where the root is empty.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from xnatfs.demo import holders, phantom
from xnatfs.demo.catalog import Entry
from xnatfs.demo.holders import Holder
from xnatfs.demo.objects import (
    Experiment,
    Pairs,
    Project,
    Reconstruction,
    Resource,
    Scan,
    Subject,
    timestamp,
)
from xnatfs.demo.site import Site

LOGINS = (
    ("admin", "owner"),
    ("member", "member"),
    ("reader", "collaborator"),
    ("nobody", "no role"),
)
SLICES = {"full": 192, "small": 8}
_EPOCH = 1617910125.0  # 2021-04-08 19:28:45 UTC: when everything was made
_MR = "xnat:mrSessionData"
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
    with site.tables.database.batch():
        for name, _role in LOGINS:
            site.accounts.add(name, name, admin=name == "admin")
        if size != "none":
            _Sample(site, SLICES[size]).fill(drift=drift)


class _Sample:
    """Makes the objects, in the order that gives them their ids."""

    def __init__(self, site: Site, slices: int) -> None:
        self._site = site
        self._rows = site.tables
        self._archive = site.archive
        self._slices = slices
        self._made = _EPOCH

    def fill(self, *, drift: bool) -> None:
        """Everything."""
        self._projects()
        haofei = self._subject("PVT000", "Haofei01", (("gender", "female"), ("yob", "1984")))
        first = self._session(haofei, "Haofei01_MR1", _MR)
        self._scans(first)
        self._beside(haofei, first)
        self._assessor(first)
        self._names(first)
        self._session(haofei, "Haofei01_MR2", _MR)
        other = self._subject("PVT000", "Subject_02", ())
        self._session(other, "Subject_02_PET1", "xnat:petSessionData")
        shared = self._subject("SHARED00", "S1", ())
        home = self._session(shared, "S1_MR1", _MR)
        self._put(holders.of_session(home), "NOTES", {"notes.txt": b"from the other project\n"})
        self._rows.subjects.put(replace(haofei, shares=(("SHARED00", "Haofei_shared"),)))
        self._rows.experiments.put(replace(first, shares=(("SHARED00", "Shared_MR1"),)))
        public = self._subject("PUB000", "Public01", ())
        readable = holders.of_session(self._session(public, "Public01_MR1", _MR))
        self._put(readable, "README", {"readme.txt": b"anybody may read this\n"})
        if drift:
            self._drift(readable)
        self._stamp()

    def _stamp(self) -> None:
        """All files get the same old mtime, which only depends on their place in the catalog."""
        for resource in self._rows.resources.all():
            for number, entry in enumerate(self._archive.catalog(resource).entries):
                place = self._archive.stored(resource, entry.uri)
                if place is not None:
                    os.utime(place, (_EPOCH + number, _EPOCH + number))

    def _projects(self) -> None:
        roles = (("admin", "owner"), ("member", "member"), ("reader", "collaborator"))
        self._project("PVT000", "Private project", "private", roles, aliases=("private-zero",),
                      description="A private project with one real session",
                      pi_firstname="Ada", pi_lastname="Lovelace")  # fmt: skip
        self._project("SHARED00", "Second project", "private", roles[:2])
        self._project("PUB000", "Public project", "public", roles[:1])

    def _project(self, id_: str, name: str, access: str, roles: Pairs, **more: Any) -> None:
        self._rows.projects.put(
            Project(id=id_, name=name, secondary_id=id_, access=access, roles=roles,
                    insert_date=timestamp(_EPOCH), **more)
        )  # fmt: skip

    def _when(self) -> str:
        self._made += 61.62
        return timestamp(self._made)

    def _subject(self, project: str, label: str, fields: tuple[tuple[str, str], ...]) -> Subject:
        when = self._when()
        return self._rows.subjects.put(
            Subject(
                id=self._rows.accession("S"), project=project, label=label, fields=fields,
                insert_date=when, last_modified=when,
            )
        )  # fmt: skip

    def _session(self, subject: Subject, label: str, xsi_type: str) -> Experiment:
        when = self._when()
        return self._rows.experiments.put(
            Experiment(
                id=self._rows.accession("E"), project=subject.project, label=label,
                xsi_type=xsi_type, subject=subject.id, date="2021-04-08", time="19:28:45",
                fields=(("modality", "MR" if xsi_type == _MR else "PT"), ("scanner", "Phantom")),
                insert_date=when, last_modified=when,
            )
        )  # fmt: skip

    def _scan(self, session: Experiment, name: str, kind: str, quality: str = "usable") -> Scan:
        return self._rows.scans.put(
            Scan(
                key=self._rows.number("scan"), session=session.id, id=name,
                xsi_type="xnat:mrScanData", type=kind, quality=quality, series_description=kind,
                insert_date=self._when(),
            )
        )  # fmt: skip

    def _scans(self, session: Experiment) -> None:
        localizer = self._scan(session, "1", "localizer")
        volume = self._scan(session, "4", "Ax_3D_T1")
        self._scan(session, "5_b", "Ax_T2", "questionable")
        odd = self._scan(session, "6", "WATER: T1/T2 0.8x0.8")
        dashed = self._scan(session, "1-MR1", "localizer repeat", "unusable")
        for scan, slices, side in ((localizer, 3, 64), (volume, self._slices, phantom.SIDE)):
            files = phantom.series(slices, number=int(scan.id), description=scan.type, side=side)
            self._put(holders.of_scan(session, scan), "DICOM", files, "DICOM", "RAW")
        self._put(
            holders.of_scan(session, volume), "SNAPSHOTS", {"snap.gif": b"GIF89a;"}, "GIF", "QC"
        )
        for scan in (odd, dashed):
            files = phantom.series(1, number=60 + len(scan.id), description=scan.id, side=64)
            self._put(holders.of_scan(session, scan), "DICOM", files, "DICOM", "RAW")

    def _beside(self, subject: Subject, session: Experiment) -> None:
        project = self._rows.projects.get("PVT000")
        own = holders.of_session(session)
        self._put(own, "QC", {"qc.csv": b"scan,snr\n4,31.5\n"}, "csv", "QC Data")
        self._put(holders.of_subject(subject), "CONSENT", {"consent.pdf": b"%PDF-1.4\n%%EOF\n"})
        if project is not None:
            self._put(
                holders.of_project(project), "PROTOCOL", {"protocol.txt": b"the study's protocol\n"}
            )
        recon = self._rows.reconstructions.put(
            Reconstruction(
                key=self._rows.number("recon"), session=session.id, id="R1", type="MPR",
                base_scan_type="Ax_3D_T1", insert_date=self._when(),
            )
        )  # fmt: skip
        out = holders.of_reconstruction(session, recon, "out")
        self._put(out, "MPR", {"mpr.txt": b"reconstructed\n"})
        self._put(own, "", {"unlabelled.txt": b"its resource has no label\n"})
        self._put(own, "TWICE", {"first.txt": b"the first of two\n"})
        self._put(own, "TWICE", {"second.txt": b"the second of two\n"})
        self._put(own, "EMPTY", {})

    def _assessor(self, session: Experiment) -> None:
        when = self._when()
        row = self._rows.experiments.put(
            Experiment(
                id=self._rows.accession("E"), project=session.project, label="Haofei01_QC1",
                xsi_type="xnat:qcManualAssessorData", subject=session.subject,
                session=session.id, date="2021-04-09", insert_date=when, last_modified=when,
            )
        )  # fmt: skip
        for role, label in (("out", "RESULT"), ("in", "INPUT"), ("", "PLAIN")):
            holder = holders.of_assessor(session, row, role)
            self._put(holder, label, {f"{label.lower()}.txt": f"{label}\n".encode()})

    def _names(self, session: Experiment) -> None:
        resource = self._put(holders.of_session(session), "NAMES", NAMES)
        # A file `x` and a file `x/y` cannot both lie on a disk: the bytes of `x` are in `x.gz`,
        # which stands in for it.
        place = self._archive.file(resource, "x")
        place.rename(place.with_name("x.gz"))
        place.mkdir()
        (place / "y").write_bytes(b"below a file's name\n")
        base = self._archive.catalog(resource)
        entries = [_damaged(entry) for entry in base.entries]
        beside = self._archive.entry_for(resource, "x/y", "admin", "1")
        entries.append(replace(beside, created_time=timestamp(_EPOCH)))
        entries.append(Entry(uri="gone.txt", id="gone.txt", name="gone.txt", size="4"))
        self._archive.rewrite(resource, entries, base)
        self._archive.measure(resource)

    def _drift(self, holder: Holder) -> None:
        """A resource whose catalog tells of other files than the disk has, and one of few words."""
        resource = self._put(holder, "DRIFT", _DRIFT)
        self._archive.file(resource, "uncatalogued.bin").write_bytes(b"on disk only\n")
        self._archive.file(resource, "lost.bin").unlink()
        self._archive.file(resource, "shorter.bin").write_bytes(b"cut")
        self._archive.file(resource, "longer.bin").write_bytes(_DRIFT["longer.bin"] * 2)
        self._archive.file(resource, "other.bin").write_bytes(b"O" + _DRIFT["other.bin"][1:])
        resource = self._put(holder, "UNDIGESTED", _DRIFT)
        base = self._archive.catalog(resource)
        self._archive.rewrite(resource, [replace(it, digest="") for it in base.entries], base)

    def _put(
        self,
        holder: Holder,
        label: str,
        files: Mapping[str, bytes] | Iterable[tuple[str, bytes]],
        format_: str = "",
        content: str = "",
    ) -> Resource:
        """A resource with these files, catalogued in this order."""
        resource = self._archive.create(
            holder, label, "admin", folder_name="unlabelled", format=format_, content=content
        )
        resource = self._rows.resources.put(replace(resource, insert_date=self._when()))
        base = self._archive.catalog(resource)
        entries = []
        for path, content_bytes in files.items() if isinstance(files, Mapping) else files:
            place = self._archive.file(resource, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content_bytes)
            entry = self._archive.entry_for(resource, path, "admin", "1")
            made = timestamp(_EPOCH)
            entries.append(replace(entry, created_time=made, format=format_, content=content))
        self._archive.rewrite(resource, entries, base)
        self._archive.measure(resource)
        return resource


def _damaged(entry: Entry) -> Entry:
    if entry.uri == "no-digest.txt":
        return replace(entry, digest="")
    return replace(entry, size="") if entry.uri == "no-size.txt" else entry
