"""Telling systemd how a mount is doing: the protocol of sd_notify(3), without its library."""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger(__name__)


def notify(*words: str) -> None:
    """Tell the service manager, where there is one: ``READY=1``, ``STATUS=…``. Never raises."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    # "@": a name in the abstract namespace, which begins with a NUL byte.
    place = address.replace("@", "\0", 1) if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as telling:
            telling.connect(place)
            telling.sendall("\n".join(words).encode())
    except OSError as error:
        log.info("the service manager was not told: %s", error)
