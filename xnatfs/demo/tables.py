"""Listings as JSON, XML, CSV, HTML or text, the way XNAT's tables come out (R§2.1).

Every cell is a string. The order of JSON keys is that of a Java HashMap, which real servers show
without exception, so that answers compare byte for byte with recorded ones.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape as html_escape
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from xnatfs.demo.wire import Query, Refusal, Reply, Request, document

Row = Mapping[str, str]

_FORMATS = {
    "json": "application/json",
    "xml": "text/xml",
    "csv": "text/csv",
    "txt": "text/plain",
    "html": "text/html",
}
LIST_VARIANTS = ("application/json", "text/html", "text/xml")


@dataclass(frozen=True, slots=True)
class Table:
    """A listing: its columns in the order of the query, its rows, and what stands beside them.

    `properties` follow the rows (`totalRecords`, `title`); `column_notes` is the `Columns` part.
    """

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    properties: tuple[tuple[str, str], ...] = ()
    column_notes: tuple[Mapping[str, str], ...] = ()


def counted(columns: Sequence[str], rows: Iterable[Row]) -> Table:
    """A listing that says how many rows it has."""
    rows = tuple(rows)
    return Table(tuple(columns), rows, (("totalRecords", str(len(rows))),))


def java_order(keys: Iterable[str]) -> list[str]:
    """Keys in the order in which a Java HashMap iterates them when they were put in this order."""
    names = list(dict.fromkeys(keys))
    buckets = 16
    while len(names) > buckets * 0.75:
        buckets *= 2
    return sorted(names, key=lambda name: _java_hash(name) & (buckets - 1))


def _java_hash(text: str) -> int:
    value = 0
    units = text.encode("utf-16-be")
    for high, low in zip(units[::2], units[1::2], strict=True):
        value = (31 * value + (high << 8 | low)) & 0xFFFFFFFF
    return value ^ (value >> 16)


def json_text(value: Any) -> str:
    """JSON as org.json writes it: no blanks, non-ASCII as it is."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")


def accepted(request: Request, variants: Sequence[str]) -> str:
    """The variant that the Accept header prefers. Raises Refusal 406 when it takes none (R§2.1)."""
    header = request.headers.get("accept", "").strip() or "*/*"
    wishes: list[tuple[float, str]] = []
    for part in header.split(","):
        kind, *parameters = [piece.strip().lower() for piece in part.split(";")]
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            wishes.append((float(quality), kind))
        except ValueError:
            wishes.append((1.0, kind))
    for weight, kind in sorted(wishes, key=lambda wish: -wish[0]):
        for variant in variants:
            aliases = {variant, f"{variant.partition('/')[0]}/*", "*/*", "*"}
            if variant == "text/xml":
                aliases.add("application/xml")
            if weight > 0 and kind in aliases:
                return variant
    raise Refusal(406)


def ordered(table: Table, query: Query) -> Table:
    """The table in the order of `sortBy=a,b` and `sortOrder=DESC` (R§2.1)."""
    names = query.words("sortBy")
    if not names:
        return table
    rows = sorted(
        table.rows,
        key=lambda row: [row.get(name, "") for name in names],
        reverse=query.get("sortOrder").upper() == "DESC",
    )
    return Table(table.columns, tuple(rows), table.properties, table.column_notes)


def render(table: Table, request: Request) -> Reply:
    """The reply for a listing. Raises Refusal 406."""
    variant = accepted(request, LIST_VARIANTS)
    media_type = _FORMATS.get(request.query.get("format").lower(), variant)
    table = ordered(table, request.query)
    writers = {
        "application/json": _as_json,
        "text/xml": _as_xml,
        "text/csv": _as_csv,
        "text/plain": _as_text,
        "text/html": _as_html,
    }
    return document(writers[media_type](table), media_type)


def _as_json(table: Table) -> str:
    order = java_order(table.columns)
    rows = ",".join(json_text({key: row.get(key, "") for key in order}) for row in table.rows)
    notes = ""
    if table.column_notes:
        notes = '"Columns":[' + ",".join(json_text(dict(it)) for it in table.column_notes) + "],"
    tail = "".join(f', "{key}": {json_text(value)}' for key, value in table.properties)
    return '{"ResultSet":{' + notes + '"Result":[' + rows + "]" + tail + "}}"


def _as_xml(table: Table) -> str:
    beside = "".join(f" {key}={quoteattr(value)}" for key, value in table.properties)
    heads = "".join(f"<column>{escape(name)}</column>" for name in table.columns)
    rows = "".join(
        "<row>"
        + "".join(f"<cell>{escape(row.get(name, ''))}</cell>" for name in table.columns)
        + "</row>"
        for row in table.rows
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<ResultSet{beside}><results>'
        f"<columns>{heads}</columns><rows>{rows}</rows></results></ResultSet>"
    )


def _as_csv(table: Table) -> str:
    out = io.StringIO()
    out.write(",".join(table.columns) + "\n")
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([row.get(name, "") for name in table.columns] for row in table.rows)
    return out.getvalue()


def _as_text(table: Table) -> str:
    lines = ["\t".join(table.columns)]
    lines += ["\t".join(row.get(name, "") for name in table.columns) for row in table.rows]
    return "\n".join(lines) + "\n"


def _as_html(table: Table) -> str:
    heads = "".join(f"<th>{html_escape(name)}</th>" for name in table.columns)
    rows = "".join(
        "<tr>"
        + "".join(f"<td>{html_escape(row.get(it, ''))}</td>" for it in table.columns)
        + "</tr>"
        for row in table.rows
    )
    return f"<html><body><table><thead><tr>{heads}</tr></thead>{rows}</table></body></html>"
