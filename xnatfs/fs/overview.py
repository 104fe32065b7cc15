"""What a mount tells about itself: for ``status``, ``umount`` and ``uploads``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from xnatfs.fs.parts import Parts


def status(parts: Parts, mount: str) -> dict[str, Any]:
    """What ``xnatfs status --json`` shows (JSON-able)."""
    login = parts.session.credentials
    return {
        "server": parts.session.url,
        "user": parts.session.user,
        "login": {
            "source": login.source,
            "expires": login.expires,
            "refused": parts.session.refused,
        },
        "mount": mount,
        "path": parts.settings.view.path,
        "started": parts.started,
        "read_only": parts.settings.policy.read_only,
        "offline": parts.settings.offline,
        "downloads": asdict(parts.downloads.stats()),
        "store": asdict(parts.store.stats()),
        "uploads": {
            "sent_files": parts.tally.sent_files,
            "sent_bytes": parts.tally.sent_bytes,
            "owed": parts.uploader.owed(),
            "pending": pending(parts),
        },
        "read_failures": [asdict(failure) for failure in parts.tally.read_failures()],
    }


def pending(parts: Parts) -> list[dict[str, Any]]:
    """What has not reached the server, a row for each upload.

    What the server has taken and whose MD5 is only still to be seen does not count.
    """
    owed = parts.uploader.owed_ids()
    records = [upload.record for upload in parts.spool.pending()]
    return [
        {
            "id": record.id,
            "path": record.target.labels,
            "size": record.size,
            "state": record.state.value,
            "error": record.last_error,
            "created": record.created,
        }
        for record in records
        if record.id not in owed
    ]
