"""The archive by plain HTTP, as curl would ask it: the demo's second opinion.

Shares nothing with ``xnatfs.rest`` on purpose: what the mount wrote is proved by somebody else.
"""

from __future__ import annotations

import base64
import http.client
import json
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import md5
from pathlib import Path
from typing import IO
from urllib.parse import quote

from xnatfs.errors import NotXnat, ServerFault, Unreachable, XnatfsError

# Seconds; an upload of a real scan takes a while on a slow disk.
_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class PlainRest:
    """A server, asked with one request at a time."""

    # Base URL without a slash at its end.
    url: str
    user: str
    password: str = field(repr=False)

    def files(self, resource: str) -> list[str]:
        """The names of the files of a resource.

        Args:
            resource: its path below /data, by labels.

        Raises: Unreachable, ServerFault, NotXnat.
        """
        body = self._ask("GET", f"{quote(resource)}/files?format=json")
        try:
            rows = json.loads(body)["ResultSet"]["Result"]
            return [str(row["Name"]) for row in rows]
        except (ValueError, KeyError, TypeError) as error:
            raise NotXnat(f"{self.url}: the listing of {resource} is none") from error

    def digest(self, resource: str, name: str) -> str:
        """The MD5 of a file's bytes, as they are downloaded. Raises: as ``files``."""
        found = md5(usedforsecurity=False)
        for piece in self._download(f"{quote(resource)}/files/{quote(name)}"):
            found.update(piece)
        return found.hexdigest()

    def make(self, path: str, query: str = "") -> None:
        """PUT an object of the hierarchy, or a resource. Raises: as ``files``."""
        self._ask("PUT", quote(path) + (f"?{query}" if query else ""))

    def upload_folder(self, resource: str, folder: Path) -> None:
        """Upload the files of a folder as one archive that the server unpacks.

        Raises: as ``files``.
        """
        with tempfile.TemporaryFile() as packed:
            with tarfile.open(fileobj=packed, mode="w") as tar:
                for file in sorted(folder.iterdir()):
                    tar.add(file, file.name, filter=_readable)
            packed.seek(0)
            self._post_archive(f"{quote(resource)}/files?extract=true", packed)

    def _post_archive(self, address: str, packed: IO[bytes]) -> None:
        boundary = "xnatfs-demo-7c1f0b9e"
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; '
            'filename="files.tar"\r\nContent-Type: application/octet-stream\r\n\r\n'
        ).encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        size = packed.seek(0, 2)
        packed.seek(0)

        def body() -> Iterator[bytes]:
            yield head
            while piece := packed.read(1 << 20):
                yield piece
            yield tail

        request = self._request("POST", address)
        request.data = body()
        request.add_header("Content-Type", f"multipart/form-data; boundary={boundary}")
        request.add_header("Content-Length", str(len(head) + size + len(tail)))
        self._send(request)

    def _request(self, verb: str, address: str) -> urllib.request.Request:
        # The demo's own server on the loopback, over http.
        request = urllib.request.Request(f"{self.url}/data{address}", method=verb)  # noqa: S310
        login = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        request.add_header("Authorization", f"Basic {login}")
        return request

    def _ask(self, verb: str, address: str) -> bytes:
        return self._send(self._request(verb, address))

    def _send(self, request: urllib.request.Request) -> bytes:
        return b"".join(self._pieces(request))

    def _download(self, address: str) -> Iterator[bytes]:
        return self._pieces(self._request("GET", address))

    def _pieces(self, request: urllib.request.Request) -> Iterator[bytes]:
        what = f"{request.get_method()} {request.full_url}"
        try:
            # No proxy of the environment between this machine and itself.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(request, timeout=_TIMEOUT_S) as reply:
                while piece := reply.read(1 << 20):
                    yield piece
        except urllib.error.HTTPError as error:
            with error:
                raise ServerFault(f"{what}: status {error.code}") from error
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{what}: {error}") from error


def _readable(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mode = 0o644
    return member


def case_scans(case: Path) -> list[tuple[str, str, Path]]:
    """The scans of a session in the layout ``scans/N_TYPE/DICOM/*.dcm``.

    Returns: (scan id, type, folder of its DICOM files), by id.

    Raises: XnatfsError: there is none.
    """
    found = []
    for folder in (case / "scans").glob("*/DICOM"):
        number, _, kind = folder.parent.name.partition("_")
        found.append((number, kind, folder))
    if not found:
        raise XnatfsError(f"{case}: no scans/N_TYPE/DICOM folders here")
    return sorted(found, key=lambda scan: (len(scan[0]), scan[0]))
