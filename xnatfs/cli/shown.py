"""How values are shown: sizes, counts, times, and tables in five formats."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import time
from collections.abc import Iterable, Sequence

FORMATS = ("table", "json", "csv", "xml", "html")

Row = dict[str, str]


def bytes_text(count: int) -> str:
    """``130.2 KB``: units of 1000, as disks and most listings count."""
    value = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def count_text(count: int, noun: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def age_text(seconds: float) -> str:
    """``3 d``, ``47 h``, ``12 min``, ``90 s``: two of a unit at least."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


def expiry_text(expires: float) -> str:
    """When a login ends, in words; seconds since the epoch, 0: unknown."""
    if not expires:
        return "the server does not tell when it ends"
    left = expires - time.time()
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(expires))
    if left <= 0:
        return f"it ended on {when}; run `xnatfs login`"
    return f"it ends on {when} (in {age_text(left)})"


# Control characters, lone surrogates: a name must not steer somebody's terminal.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with ``?`` for what a terminal must not get."""
    return _UNPRINTABLE.sub("?", text)


def render(rows: Iterable[Row], columns: Sequence[str], form: str) -> str:
    """Rows as a text in one of ``FORMATS``; every column a string, missing ones empty."""
    cells = [[row.get(column, "") for column in columns] for row in rows]
    return _RENDER[form](cells, columns)


def _table(cells: list[list[str]], columns: Sequence[str]) -> str:
    lines = [[printable(cell) for cell in row] for row in [[*columns], *cells]]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        + "\n"
        for line in lines
    )


def _json(cells: list[list[str]], columns: Sequence[str]) -> str:
    rows = [dict(zip(columns, row, strict=True)) for row in cells]
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"


def _csv(cells: list[list[str]], columns: Sequence[str]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(cells)
    return out.getvalue()


def _xml(cells: list[list[str]], columns: Sequence[str]) -> str:
    from xml.sax.saxutils import quoteattr  # not for every command: it loads half of urllib

    # XML 1.0 knows no control characters, not even escaped ones.
    rows = "".join(
        "  <entry"
        + "".join(
            f" {column}={quoteattr(printable(cell))}"
            for column, cell in zip(columns, row, strict=True)
            if cell
        )
        + "/>\n"
        for row in cells
    )
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<entries>\n{rows}</entries>\n'


def _html(cells: list[list[str]], columns: Sequence[str]) -> str:
    def line(tag: str, row: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>\n"

    head = '<!DOCTYPE html>\n<meta charset="utf-8">\n<title>xnatfs</title>\n<table>\n'
    titles = [html.escape(column) for column in columns]
    return head + line("th", titles) + "".join(line("td", row) for row in cells) + "</table>\n"


_RENDER = {"table": _table, "json": _json, "csv": _csv, "xml": _xml, "html": _html}
