"""One scan or reconstruction: GET, PUT, DELETE (R§5.3, R§12.4)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from xnatfs.demo import holders, items
from xnatfs.demo.addresses import variable
from xnatfs.demo.database import Rows
from xnatfs.demo.objects import Experiment, Reconstruction, Scan, timestamp
from xnatfs.demo.routes import Call
from xnatfs.demo.single import Single, path_value
from xnatfs.demo.site import Site
from xnatfs.demo.wire import Refusal, Reply, text

Part = TypeVar("Part", Scan, Reconstruction)


class Parts:
    """Answers for `…/scans/SCAN` and `…/reconstructions/RECON`."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._rows = site.tables
        self._single = Single(site)

    def _find(self, call: Call, key: str, rows: Rows[Part]) -> tuple[Experiment, str, Part | None]:
        """The session, the plain id that the call names, and the part if there is one."""
        _project, session = self._single.experiment(call)
        name = variable(call.variables, key)
        return session, name, next((it for it in rows.of(session.id) if it.id == name), None)

    def _get(self, call: Call, key: str, rows: Rows[Part]) -> tuple[Experiment, Part]:
        session, _name, part = self._find(call, key, rows)
        if part is None:
            raise Refusal(404, "Unable to find the specified part of the session.")
        return session, part

    def _need(self, call: Call, verb: str, session: Experiment) -> None:
        self._single.need(call.request, verb, self._rows.projects.get(session.project))

    def get_scan(self, call: Call) -> Reply:
        """A scan, by its plain id (R§12.4)."""
        scan = self._get(call, "SCAN", self._rows.scans)[1]
        return items.reply(items.scan_item(self._rows, scan), call.request)

    def get_reconstruction(self, call: Call) -> Reply:
        """A reconstruction."""
        recon = self._get(call, "RECON", self._rows.reconstructions)[1]
        return items.reply(items.reconstruction_item(self._rows, recon), call.request)

    def put_scan(self, call: Call) -> Reply:
        """Make or change a scan."""
        request, query = call.request, call.request.query
        with self._rows.lock:
            session, name, known = self._find(call, "SCAN", self._rows.scans)
            self._need(call, "edit", session)
            xsi_type = query.get("xsiType")
            if known and xsi_type and xsi_type != known.xsi_type:
                raise Refusal(409, "Scan exists with another type.")
            if not known and not xsi_type:
                raise Refusal(417, "Need PUT Contents")
            if xsi_type == "xnat:imageScanData" or (xsi_type and not xsi_type.endswith("ScanData")):
                raise Refusal(400, f"Unknown scan type {xsi_type}")
            scan = known or Scan(
                key=self._rows.number("scan"), session=session.id, id=name, xsi_type=xsi_type,
                quality="", insert_user=request.user.name, insert_date=timestamp(),
            )  # fmt: skip
            names = ("type", "quality", "note", "series_description")
            given: dict[str, Any] = {
                it: path_value(query, f"/{it}") or getattr(scan, it) for it in names
            }
            self._rows.scans.put(replace(scan, **given))
        return text("")

    def put_reconstruction(self, call: Call) -> Reply:
        """Make or change a reconstruction."""
        request, query = call.request, call.request.query
        with self._rows.lock:
            session, name, known = self._find(call, "RECON", self._rows.reconstructions)
            self._need(call, "edit", session)
            recon = known or Reconstruction(
                key=self._rows.number("recon"), session=session.id, id=name,
                insert_user=request.user.name, insert_date=timestamp(),
            )  # fmt: skip
            kind = path_value(query, "/type") or recon.type
            base = path_value(query, "/baseScanType") or recon.base_scan_type
            self._rows.reconstructions.put(replace(recon, type=kind, base_scan_type=base))
        return text("")

    def delete_scan(self, call: Call) -> Reply:
        """Remove a scan with its files."""
        if call.tail.strip("/"):
            raise Refusal(400)
        session, scan = self._get(call, "SCAN", self._rows.scans)
        self._need(call, "delete", session)
        self._site.archive.remove_holders([holders.of_scan(session, scan)])
        self._rows.scans.drop(scan.key)
        return text("")

    def delete_reconstruction(self, call: Call) -> Reply:
        """Remove a reconstruction with its files."""
        session, recon = self._get(call, "RECON", self._rows.reconstructions)
        self._need(call, "delete", session)
        both = [holders.of_reconstruction(session, recon, role) for role in ("in", "out")]
        self._site.archive.remove_holders(both)
        self._rows.reconstructions.drop(recon.key)
        return text("")
