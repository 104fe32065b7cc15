"""Listings as JSON, XML, CSV, HTML or text, the way XNAT's tables come out (R§2.1).

Every cell is a string. The order of JSON keys is that of a Java HashMap, which real servers show
without exception, so that answers compare byte for byte with recorded ones.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape as html_escape
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from xnatfs.demo.calls import Call
from xnatfs.demo.wire import Query, Refusal, Reply, document

Rows = Sequence[Mapping[str, str]]

LIST_VARIANTS = ("application/json", "text/html", "text/xml")


@dataclass(frozen=True, slots=True)
class Table:
    """A listing: its columns in the order of the query, its rows, and what stands beside them.

    `properties` follow the rows (`totalRecords`, `title`); `column_notes` is the `Columns` part.
    """

    columns: Sequence[str]
    rows: Rows
    properties: tuple[tuple[str, str], ...] = ()
    column_notes: tuple[Mapping[str, str], ...] = ()


def counted(columns: Sequence[str], cells: Iterable[Sequence[str]]) -> Table:
    """A listing that says how many rows it has."""
    rows = [dict(zip(columns, them, strict=True)) for them in cells]
    return Table(columns, rows, (("totalRecords", str(len(rows))),))


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


def accepted(call: Call, variants: Sequence[str]) -> str:
    """The variant that the Accept header prefers. Raises Refusal 406 when it takes none (R§2.1)."""
    wishes: list[tuple[float, str]] = []
    for part in (call.headers.get("accept", "").strip() or "*/*").split(","):
        kind, *parameters = [piece.strip().lower() for piece in part.split(";")]
        quality = next((it[2:] for it in parameters if it.startswith("q=")), "1")
        weight = float(quality) if quality.replace(".", "", 1).isdigit() else 1.0
        wishes.append((weight, "text/xml" if kind == "application/xml" else kind))
    for weight, kind in sorted(wishes, key=lambda wish: -wish[0]):
        for variant in variants:
            if weight > 0 and kind in (variant, f"{variant.partition('/')[0]}/*", "*/*", "*"):
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
    return replace(table, rows=rows)


def render(table: Table, call: Call) -> Reply:
    """The reply for a listing; `format` overrides Accept. Raises Refusal 406."""
    variant = accepted(call, LIST_VARIANTS)
    wish = call.query.get("format").lower()
    media_type, write = _WRITERS.get(wish) or next(
        it for it in _WRITERS.values() if it[0] == variant
    )
    return document(write(ordered(table, call.query)), media_type)


def _cells(table: Table) -> list[list[str]]:
    return [[row.get(name, "") for name in table.columns] for row in table.rows]


def _as_json(table: Table) -> str:
    order = java_order(table.columns)
    rows = json_text([{key: row.get(key, "") for key in order} for row in table.rows])
    notes = '"Columns":' + json_text(table.column_notes) + "," if table.column_notes else ""
    tail = "".join(f', "{key}": {json_text(value)}' for key, value in table.properties)
    return f'{{"ResultSet":{{{notes}"Result":{rows}{tail}}}}}'


def _as_xml(table: Table) -> str:
    beside = "".join(f" {key}={quoteattr(value)}" for key, value in table.properties)
    heads = "".join(f"<column>{escape(name)}</column>" for name in table.columns)
    rows = "".join(
        "<row>" + "".join(f"<cell>{escape(cell)}</cell>" for cell in row) + "</row>"
        for row in _cells(table)
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<ResultSet{beside}><results>'
        f"<columns>{heads}</columns><rows>{rows}</rows></results></ResultSet>"
    )


def _as_csv(table: Table) -> str:
    out = io.StringIO()
    out.write(",".join(table.columns) + "\n")
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(_cells(table))
    return out.getvalue()


def _as_text(table: Table) -> str:
    return "".join("\t".join(row) + "\n" for row in [table.columns, *_cells(table)])


def _as_html(table: Table) -> str:
    heads = "".join(f"<th>{html_escape(name)}</th>" for name in table.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html_escape(cell)}</td>" for cell in row) + "</tr>"
        for row in _cells(table)
    )
    return f"<html><body><table><thead><tr>{heads}</tr></thead>{rows}</table></body></html>"


_WRITERS = {
    "json": ("application/json", _as_json),
    "xml": ("text/xml", _as_xml),
    "html": ("text/html", _as_html),
    "csv": ("text/csv", _as_csv),
    "txt": ("text/plain", _as_text),
}
