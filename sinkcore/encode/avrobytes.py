"""Numbers and lengths in Avro's binary encoding, and what is wrong where they cannot be."""

from __future__ import annotations

LONG_BYTES_MAX, INT_BYTES_MAX = 10, 5
_ONE_BYTE = [bytes([byte]) for byte in range(128)]


class Misfit(Exception):  # noqa: N818 - a finding, not an error
    """The bytes are no value of the type: the message says why, and `at` where."""

    def __init__(self, what: str, at: int) -> None:
        super().__init__(what)
        self.at = at


def number_at(data: bytes, at: int, bytes_max: int = LONG_BYTES_MAX) -> tuple[int, int]:
    """A zigzag integer, and where it ends. Source: the Avro specification, "Binary Encoding"."""
    value = data[at]
    if value < 128:
        return (value >> 1) ^ -(value & 1), at + 1
    end = at
    value = shift = 0
    while data[end] > 127:
        value |= (data[end] & 127) << shift
        shift += 7
        end += 1
        if end - at >= bytes_max:
            raise Misfit("a number of too many bytes", at)
    value |= data[end] << shift
    if value >> (64 if bytes_max == LONG_BYTES_MAX else 32):
        raise Misfit("a number of too many bits", at)
    return (value >> 1) ^ -(value & 1), end + 1


def size_at(data: bytes, at: int) -> tuple[int, int]:
    """Where the bytes begin whose length stands at `at`, and where they end, there or behind the end of `data`."""
    size, start = number_at(data, at)
    if size < 0:
        raise Misfit("a negative length", at)
    return start, start + size


def long(number: int) -> bytes:
    """A zigzag integer."""
    rest = number << 1 if number >= 0 else (-number << 1) - 1
    if rest < 128:
        return _ONE_BYTE[rest]
    found = bytearray()
    while rest > 127:
        found.append(rest & 127 | 128)
        rest >>= 7
    found.append(rest)
    return bytes(found)


def sized(content: bytes) -> bytes:
    """Bytes, or UTF-8 text, behind their length."""
    return long(len(content)) + content
