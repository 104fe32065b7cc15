"""One scan or reconstruction: GET, PUT, DELETE (R§5.3, R§12.4)."""

from __future__ import annotations

from dataclasses import replace

from xnatfs.demo import holders, items
from xnatfs.demo.addresses import variable
from xnatfs.demo.objects import Experiment, Reconstruction, Scan, timestamp
from xnatfs.demo.routes import Call
from xnatfs.demo.single import Single, path_value
from xnatfs.demo.site import Site
from xnatfs.demo.wire import Refusal, Reply, text


class Parts:
    """Answers for `…/scans/SCAN` and `…/reconstructions/RECON`."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._rows = site.tables
        self._single = Single(site)

    def get_scan(self, call: Call) -> Reply:
        """A scan, by its plain id (R§12.4)."""
        scan = self._scan(call)
        return items.reply(items.scan_item(self._rows, scan), call.request)

    def _scan(self, call: Call) -> Scan:
        _project, session = self._single.experiment(call)
        name = variable(call.variables, "SCAN")
        found = [it for it in self._rows.scans.of(session.id) if it.id == name]
        if not found:
            raise Refusal(404, "Unable to find the specified scan.")
        return found[0]

    def put_scan(self, call: Call) -> Reply:
        """Make or change a scan."""
        request, query = call.request, call.request.query
        _project, session = self._single.experiment(call)
        self._single.need(request, "edit", self._rows.projects.get(session.project))
        name, xsi_type = variable(call.variables, "SCAN"), query.get("xsiType")
        with self._rows.lock:
            found = [it for it in self._rows.scans.of(session.id) if it.id == name]
            if found and xsi_type and xsi_type != found[0].xsi_type:
                raise Refusal(409, "Scan exists with another type.")
            if not found and not xsi_type:
                raise Refusal(417, "Need PUT Contents")
            if xsi_type == "xnat:imageScanData" or (xsi_type and not xsi_type.endswith("ScanData")):
                raise Refusal(400, f"Unknown scan type {xsi_type}")
            scan = found[0] if found else Scan(
                key=self._rows.number("scan"), session=session.id, id=name, xsi_type=xsi_type,
                quality="", insert_user=request.user.name, insert_date=timestamp(),
            )  # fmt: skip
            self._rows.scans.put(
                replace(
                    scan,
                    type=path_value(query, "/type") or scan.type,
                    quality=path_value(query, "/quality") or scan.quality,
                    note=path_value(query, "/note") or scan.note,
                    series_description=path_value(query, "/series_description")
                    or scan.series_description,
                )
            )
        return text("")

    def delete_scan(self, call: Call) -> Reply:
        """Remove a scan with its files."""
        if call.tail.strip("/"):
            raise Refusal(400)
        _project, session = self._single.experiment(call)
        scan = self._scan(call)
        self._single.need(call.request, "delete", self._rows.projects.get(session.project))
        self._site.archive.remove_holders([holders.of_scan(session, scan)])
        self._rows.scans.drop(scan.key)
        return text("")

    def get_reconstruction(self, call: Call) -> Reply:
        """A reconstruction."""
        _session, recon = self._reconstruction(call)
        return items.reply(items.reconstruction_item(self._rows, recon), call.request)

    def _reconstruction(self, call: Call) -> tuple[Experiment, Reconstruction]:
        _project, session = self._single.experiment(call)
        name = variable(call.variables, "RECON")
        found = [it for it in self._rows.reconstructions.of(session.id) if it.id == name]
        if not found:
            raise Refusal(404, "Unable to find the specified reconstruction.")
        return session, found[0]

    def put_reconstruction(self, call: Call) -> Reply:
        """Make or change a reconstruction."""
        request, query = call.request, call.request.query
        _project, session = self._single.experiment(call)
        self._single.need(request, "edit", self._rows.projects.get(session.project))
        name = variable(call.variables, "RECON")
        with self._rows.lock:
            found = [it for it in self._rows.reconstructions.of(session.id) if it.id == name]
            recon = found[0] if found else Reconstruction(
                key=self._rows.number("recon"), session=session.id, id=name,
                insert_user=request.user.name, insert_date=timestamp(),
            )  # fmt: skip
            self._rows.reconstructions.put(
                replace(
                    recon,
                    type=path_value(query, "/type") or recon.type,
                    base_scan_type=path_value(query, "/baseScanType") or recon.base_scan_type,
                )
            )
        return text("")

    def delete_reconstruction(self, call: Call) -> Reply:
        """Remove a reconstruction with its files."""
        session, recon = self._reconstruction(call)
        self._single.need(call.request, "delete", self._rows.projects.get(session.project))
        self._site.archive.remove_holders(
            [holders.of_reconstruction(session, recon, role) for role in ("in", "out")]
        )
        self._rows.reconstructions.drop(recon.key)
        return text("")
