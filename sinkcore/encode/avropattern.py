"""What most records of a schema look like, as regular expressions over their bytes.

Avro has no marks between fields, but only strings, bytes, arrays and maps have their length written before them.
Everything else is regular, and so are short strings, one alternative for each length. Where a pattern does not
match, nothing is said: the record is walked then.
"""

from __future__ import annotations

from sinkcore.schemas.avro import Node
from sinkcore.schemas.avrological import range_of

LENGTHS = 40
"""Strings up to this length, less one, are in a pattern."""
STRINGS_MAX = 32
"""Strings in one pattern; each costs time to compile."""
TYPES_MAX = 256
"""Types in one pattern: one that is used twice, in one that is used twice, and so on, would double each time."""
_LEVELS_MAX = 64
_BRANCHES_MAX = 64  # of a union or an enum: those whose number takes one byte
_FIXED_MAX_BYTES = 4096

# Source: the Avro specification, "Binary Encoding": zigzag integers, seven bits a byte, the last one without its
# top bit; 32 bits take five bytes at the most, 64 bits ten.
_BITS = 7  # of a number, in each of its bytes
_REGULAR = {
    "null": b"",
    "boolean": rb"[\x00\x01]",
    "int": rb"(?:[\x80-\xff]{0,3}+[\x00-\x7f]|[\x80-\xff]{4}[\x00-\x0f])",
    "long": rb"(?:[\x80-\xff]{0,8}+[\x00-\x7f]|[\x80-\xff]{9}[\x00\x01])",
    "float": b".{4}",
    "double": b".{8}",
}
_ASCII = b"(?:%b)" % b"|".join(b"\\x%02x[\\x00-\\x7f]{%d}" % (2 * n, n) for n in range(LENGTHS))
_BYTES = b"(?:%b)" % b"|".join(b"\\x%02x.{%d}" % (2 * n, n) for n in range(LENGTHS))


def pattern_of(node: Node, *, ascii_only: bool) -> bytes | None:
    """A pattern that matches nothing but values of the type, though not all of them; None where there is none.

    Unless it is `ascii_only`, it takes any bytes for text, and has each, with its length before it, as a group.
    """
    try:
        return _Maker({"string": _ASCII if ascii_only else b"(%b)" % _BYTES, "bytes": _BYTES}).pattern(node, 0)
    except _Irregular:
        return None


class _Irregular(Exception):  # noqa: N818 - a finding, not an error
    """There is no pattern, or none of bearable size."""


class _Maker:
    """Makes one pattern; counts how many more strings and types it may hold."""

    def __init__(self, texts: dict[str, bytes]) -> None:
        self._texts = texts
        self._strings = STRINGS_MAX
        self._types = TYPES_MAX

    def pattern(self, node: Node, level: int) -> bytes:
        """The part for values of this type."""
        self._types -= 1
        self._strings -= node.type in self._texts
        if self._types < 0 or self._strings < 0 or level > _LEVELS_MAX:
            raise _Irregular
        limits = range_of(node.type, node.logical)
        if limits is not None:
            return _within(*limits)
        if node.type in _REGULAR:
            return _REGULAR[node.type]
        if node.type in self._texts:
            return self._texts[node.type]
        if node.type == "fixed" and node.size <= _FIXED_MAX_BYTES:
            return b".{%d}" % node.size
        if node.type == "enum":
            return _one_of([b""] * len(node.symbols))
        if node.type == "union":
            return _one_of([self.pattern(branch, level + 1) for branch in node.branches])
        if node.type == "record":
            return b"".join([self.pattern(of_field, level + 1) for _, of_field in node.fields])
        raise _Irregular


def _within(least: int, most: int) -> bytes:
    """Numbers as far from 0 as both limits are at the least, by a power of two: most dates are."""
    if least >= 0:
        raise _Irregular
    bits = min(-least, most).bit_length()  # one less for the power, one more for the sign
    whole, rest = divmod(bits, _BITS)
    shorter = rb"[\x80-\xff]{0,%d}+[\x00-\x7f]" % (whole - 1)
    return rb"(?:%b|[\x80-\xff]{%d}[\x00-\x%02x])" % (shorter, whole, (1 << rest) - 1)


def _one_of(alternatives: list[bytes]) -> bytes:
    """The number of an alternative, and what follows it."""
    if not 0 < len(alternatives) <= _BRANCHES_MAX:
        raise _Irregular
    return b"(?:%b)" % b"|".join(b"\\x%02x%b" % (2 * number, each) for number, each in enumerate(alternatives))
