"""Records of one Avro schema become object container files, without a look into the records.

Source: the Avro specification, "Object Container Files". Blocks are deflated: both of ADX's readers know that
codec, and its SDKs compress no format that has a compression of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from isal import isal_zlib

from sinkcore.encode.avrobytes import long, sized
from sinkcore.encode.bodies import LEVEL, Body

SYNC_BYTES = 16
_RAW_DEFLATE = -15  # no header, a window of 32 KiB


class AvroWriter:
    """Puts records into files and begins another one where one would hold more than `max_bytes` unpacked.

    Only a single record larger than that makes a larger file, alone. `sync` are 16 bytes that end each block.
    """

    def __init__(self, schema: bytes, sync: bytes, max_bytes: int) -> None:
        assert len(sync) == SYNC_BYTES
        entries = ((b"avro.schema", schema), (b"avro.codec", b"deflate"))
        self._header = b"".join(
            [b"Obj\x01", long(len(entries)), *(sized(part) for entry in entries for part in entry), b"\x00", sync]
        )
        self._sync = sync
        self._max_bytes = max_bytes
        self._bodies: list[Body] = []
        self._begin()

    def add(self, records: Sequence[bytes]) -> None:
        """Take these records, as one block where they fit."""
        block = b"".join(records)
        if self._raw_size_bytes + len(block) <= self._max_bytes:
            self._write(block, len(records))
            return
        start, size_bytes = 0, self._raw_size_bytes
        for number, record in enumerate(records):
            if size_bytes + len(record) > self._max_bytes and (self._rows or number > start):
                self._write(b"".join(records[start:number]), number - start)
                self._end()
                start, size_bytes = number, self._raw_size_bytes
            size_bytes += len(record)
        self._write(b"".join(records[start:]), len(records) - start)

    def finish(self) -> list[Body]:
        """Everything taken, in order; no file is empty."""
        if self._rows:
            self._end()
        return self._bodies

    def _begin(self) -> None:
        self._parts = [self._header]
        self._raw_size_bytes = len(self._header)
        self._rows = 0

    def _write(self, block: bytes, records: int) -> None:
        if records:
            stored = isal_zlib.compress(block, LEVEL, _RAW_DEFLATE)
            self._parts += [long(records), long(len(stored)), stored, self._sync]
            self._raw_size_bytes += len(block)
            self._rows += records

    def _end(self) -> None:
        self._bodies.append(Body(b"".join(self._parts), self._raw_size_bytes, self._rows))
        self._begin()
