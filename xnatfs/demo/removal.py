"""Taking objects out of the archive, with everything below them (R§5.3)."""

from __future__ import annotations

import shutil

from xnatfs.demo import holders
from xnatfs.demo.objects import Experiment, Subject
from xnatfs.demo.site import Site


class Removal:
    """Removes; rights were asked before."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._rows = site.tables

    def subject(self, subject: Subject) -> None:
        """A subject with its sessions."""
        for session in self._rows.experiments.of(f"subject:{subject.id}"):
            self.experiment(session)
        self._site.archive.remove_holders([holders.of_subject(subject)])
        self._rows.subjects.drop(subject.id)

    def experiment(self, row: Experiment) -> None:
        """A session with its parts, or an assessor."""
        archive = self._site.archive
        session = self._rows.experiments.get(row.session) if row.session else None
        if session is not None:
            roles = ("in", "out", "")
            archive.remove_holders([holders.of_assessor(session, row, it) for it in roles])
            self._rows.experiments.drop(row.id)
            return
        archive.remove_holders(holders.below_session(self._rows, row))
        for scan in self._rows.scans.of(row.id):
            self._rows.scans.drop(scan.key)
        for recon in self._rows.reconstructions.of(row.id):
            self._rows.reconstructions.drop(recon.key)
        for assessor in self._rows.experiments.of(f"assessors-of:{row.id}"):
            self._rows.experiments.drop(assessor.id)
        self._rows.experiments.drop(row.id)
        shutil.rmtree(archive.root / holders.session_folder(row), ignore_errors=True)
