"""Values that are JSON: checked, put on one line each, and their metadata spliced in."""

from __future__ import annotations

from sinkcore.encode.bodies import Body, BodyWriter
from sinkcore.encode.jsoncheck import all_objects, decoder_of, object_fault
from sinkcore.encode.jsonmetadata import Splicer
from sinkcore.encode.jsonseveral import objects_in
from sinkcore.encode.rows import Batch, Fault, Rows


class JsonLines:
    """An Encoder: one JSON object a line."""

    def __init__(self, batch: Batch) -> None:
        route = batch.route
        self._decode = decoder_of(route.metadata)
        self._several = route.format != "json"
        self._splicer = None if route.metadata is None else Splicer(route, batch.segment_id, batch.keys)
        self._writer = BodyWriter(batch.blob_max_bytes)
        self._sieve = batch.sieve

    def add(self, rows: Rows) -> None:
        """See Encoder. A chunk that is good as a whole is not looked at record by record."""
        joined = b"".join(rows.values)
        one_line = b"\n" not in joined and b"\r" not in joined
        not_ascii = None if joined.isascii() else joined
        # No value is longer than all of them together, which spares most chunks another look.
        longest_max = len(joined)
        del joined
        if all_objects(rows.values, not_ascii, longest_max, self._decode):
            self._write(rows, one_line)
            return
        for part in self._sieve.rows_in(rows, self._objects_in):
            self._write(part, False)

    def add_tombstones(self, rows: Rows) -> None:
        """See Encoder."""
        self._write(rows.with_values([b"{}"] * len(rows.values)), True)

    def finish(self) -> list[Body]:
        """See Encoder."""
        return self._writer.finish()

    def _objects_in(self, value: bytes) -> list[bytes] | Fault:
        return objects_in(value, self._decode) if self._several else object_fault(value, self._decode) or [value]

    def _write(self, rows: Rows, one_line: bool) -> None:
        values = rows.values if one_line else list(map(_one_line, rows.values))
        if self._splicer is None:
            lines = b"\n".join([*values, b""])
        else:
            lines = self._splicer.lines(rows.with_values(values))
        self._writer.add(lines, len(values))


def _one_line(value: bytes) -> bytes:
    """The same JSON on one line: strings cannot hold raw line breaks, so those here are white space."""
    return value.strip(b"\r\n").replace(b"\n", b" ").replace(b"\r", b" ")
