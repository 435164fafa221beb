"""Records of one Avro schema become an object container file, without a look into the records.

Source: the Avro specification, "Object Container Files". Blocks are deflated: both of ADX's readers know that
codec, and its SDKs compress no format that has a compression of its own.
"""

from __future__ import annotations

from isal import isal_zlib

from sinkcore.encode.avrobytes import long, sized
from sinkcore.encode.bodies import LEVEL

SYNC_BYTES = 16
_RAW_DEFLATE = -15  # no header, a window of 32 KiB


class AvroFile:
    """A Container of records; `sync` are 16 bytes that end each block."""

    def __init__(self, schema: bytes, sync: bytes) -> None:
        assert len(sync) == SYNC_BYTES
        entries = ((b"avro.schema", schema), (b"avro.codec", b"deflate"))
        header = [b"Obj\x01", long(len(entries)), *(sized(part) for entry in entries for part in entry), b"\x00"]
        self._sync = sync
        self._parts = [b"".join(header), sync]
        self.header_bytes = sum(map(len, self._parts))

    def write(self, block: bytes, rows: int) -> None:
        """See Container."""
        stored = isal_zlib.compress(block, LEVEL, _RAW_DEFLATE)
        self._parts += [long(rows), long(len(stored)), stored, self._sync]

    def end(self) -> bytes:
        """See Container."""
        return b"".join(self._parts)
