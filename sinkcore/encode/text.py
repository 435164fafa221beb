"""Values that are text: checked, joined as they are, and their metadata put in front."""

from __future__ import annotations

from sinkcore.encode.bodies import Body, BodyWriter
from sinkcore.encode.rows import Batch, Fault, Rows
from sinkcore.encode.textmetadata import COLUMNS, Columns, quoted
from sinkcore.encode.textsyntax import SYNTAXES, Syntax, lines_in, utf8_fault

WIDTHS_PER_RECORD_MAX = 8
"""Different numbers of columns in one record: each makes a blob, and a segment cannot have very many."""


class Text:
    """An Encoder: rows of text, one body for each number of columns.

    Source: ADX refuses a blob whose rows have different numbers of fields (error Stream_WrongNumberOfFields), so
    that one short row would take its neighbours with it.
    """

    def __init__(self, batch: Batch) -> None:
        route = batch.route
        self._batch = batch
        self._syntax: Syntax | None = SYNTAXES.get(route.format)
        self._columns = None if route.metadata is None else Columns(route, batch.segment_id, batch.keys)
        self._writers: dict[int, BodyWriter] = {}

    def add(self, rows: Rows) -> None:
        """See Encoder. A chunk that is good as a whole is not looked at record by record."""
        if self._syntax is not None and self._syntax.all_rows(rows.values):
            self._write(rows)
            return
        for part in self._batch.sieve.rows_in(rows, self._rows_in):
            self._write(part)

    def add_tombstones(self, rows: Rows) -> None:
        """See Encoder."""
        assert self._columns is not None, "settings want metadata for such rows"
        self._put(len(COLUMNS), self._columns.rows(rows))

    def finish(self) -> list[Body]:
        """See Encoder."""
        return [body for writer in self._writers.values() for body in writer.finish()]

    def _rows_in(self, value: bytes) -> list[bytes] | Fault:
        if self._syntax is None:
            return lines_in(value) if self._batch.route.format == "txt" else utf8_fault(value) or [value]
        found = self._syntax.rows_in(value)
        widths = 1 if isinstance(found, Fault) else len(set(map(self._syntax.columns, found)))
        if widths <= WIDTHS_PER_RECORD_MAX:
            return found
        return Fault("validation_failed", f"lines of {widths} widths; at most {WIDTHS_PER_RECORD_MAX} in a record")

    def _write(self, rows: Rows) -> None:
        """Rows of one number of columns go together."""
        if self._syntax is not None:
            parts = rows.by(list(map(self._syntax.columns, rows.values)))
        elif self._batch.route.stored_format == "txt":
            parts = iter([(1, rows)])
        else:
            parts = iter([(1, rows.with_values(list(map(quoted, rows.values))))])
        for columns, part in parts:
            if self._columns is None:
                self._put(columns, [value + b"\n" for value in part.values])
            else:
                self._put(columns + len(COLUMNS), self._columns.rows(part))

    def _put(self, columns: int, lines: list[bytes]) -> None:
        if columns not in self._writers:
            self._writers[columns] = BodyWriter(self._batch.blob_max_bytes)
        self._writers[columns].add_rows(lines)
