"""The figures of a mount as a text file for Prometheus (node_exporter's textfile collector).

``serving`` writes it now and then while the mount lives, and once at its end. Names of the
archive's objects are not in it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xnatfs.errors import DiskFault

# Between two writings; Prometheus asks every 15 to 60 s. Seconds.
EVERY_S = 15.0

Status = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Metric:
    """One line of the file."""

    name: str
    # "gauge" or "counter".
    kind: str
    help: str
    # From the status of a mount; None where there is nothing to tell.
    value: Callable[[Status], float | None]


def _of(part: str, name: str) -> Callable[[Status], float | None]:
    return lambda status: status.get(part, {}).get(name)


TABLE = (
    Metric("start_time_seconds", "gauge", "When it was mounted.", lambda it: it.get("started")),
    Metric("login_expiry_seconds", "gauge", "When its login ends, if that is known.",
           lambda it: it.get("login", {}).get("expires") or None),
    Metric("store_bytes", "gauge", "Content in the local store.", _of("store", "bytes")),
    Metric("store_files", "gauge", "Files in the local store.", _of("store", "files")),
    Metric("store_hits_total", "counter", "Opens that found the content in the store.",
           _of("store", "hits")),
    Metric("store_misses_total", "counter", "Opens that did not.", _of("store", "misses")),
    Metric("store_evictions_total", "counter", "Contents removed to make room.",
           _of("store", "evictions")),
    Metric("fetched_bytes_total", "counter", "Bytes from the server.",
           _of("downloads", "fetched")),
    Metric("served_bytes_total", "counter", "Bytes handed to readers.",
           _of("downloads", "served")),
    Metric("transfers_total", "counter", "Downloads begun.", _of("downloads", "transfers")),
    Metric("retries_total", "counter", "Downloads that had to be resumed or repeated.",
           _of("downloads", "retries")),
    Metric("sent_files_total", "counter", "Files that the server has taken.",
           _of("uploads", "sent_files")),
    Metric("sent_bytes_total", "counter", "Their bytes.", _of("uploads", "sent_bytes")),
    Metric("pending_files", "gauge", "Files that are not on the server yet.",
           lambda it: len(it.get("uploads", {}).get("pending", []))),
    Metric("pending_bytes", "gauge", "Their bytes.",
           lambda it: sum(row["size"] for row in it.get("uploads", {}).get("pending", []))),
    Metric("failed_reads", "gauge", "Files that could not be read.",
           lambda it: len(it.get("read_failures", []))),
)  # fmt: skip


def render(status: Status, *, mounted: bool) -> str:
    """The file's text.

    Args:
        status: as ``status --json`` has it for a mount.
        mounted: whether it still serves.
    """
    mount = f'server="{_plain(status["server"])}",mountpoint="{_plain(status["mount"])}"'
    lines = _metric("mounted", "gauge", "1 while the mount serves, 0 after its end.")
    lines.append(f"xnatfs_mounted{{{mount}}} {int(mounted)}")
    for metric in TABLE:
        value = metric.value(status)
        if value is not None:
            lines += _metric(metric.name, metric.kind, metric.help)
            lines.append(f"xnatfs_{metric.name}{{{mount}}} {value:.17g}")
    errors = status.get("errors", {})
    if errors:
        lines += _metric("errors_total", "counter", "Operations that failed, by errno.")
        for name, count in sorted(errors.items()):
            lines.append(f'xnatfs_errors_total{{{mount},errno="{name}"}} {count}')
    return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP xnatfs_{name} {text}", f"# TYPE xnatfs_{name} {kind}"]


def _plain(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def write(file: Path, text: str) -> None:
    """Replace the file at once: a collector never reads half of it. Raises: DiskFault."""
    # The collector takes what ends in .prom; others may read it, it is meant for them.
    beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with open(descriptor, "w", encoding="utf-8", errors="replace") as out:
            out.write(text)
        os.replace(beside, file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise DiskFault(f"{file}: the metrics cannot be written: {error.strerror}") from error
