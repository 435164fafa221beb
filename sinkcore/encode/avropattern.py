"""What most records of a schema look like, as regular expressions over their bytes.

Avro has no marks between fields, but only strings, bytes, arrays and maps have their length written before them.
Everything else is regular, and so are short strings, one alternative for each length. Where a pattern does not
match, nothing is said: the record is walked then.
"""

from __future__ import annotations

from dataclasses import dataclass

from sinkcore.schemas.avro import Node
from sinkcore.schemas.avrological import range_of

LENGTHS = 40
"""Strings up to this length, less one, are in a pattern; each costs time to compile."""
STRINGS_MAX = 32
"""Strings in the patterns of one schema."""
_BRANCHES_MAX = 64  # of a union or an enum: those whose number takes one byte
_FIXED_MAX_BYTES = 4096
TYPES_MAX = 1024
"""Types in one pattern: one that is used twice, in one that is used twice, and so on, would double each time."""

# Source: the Avro specification, "Binary Encoding": zigzag integers, seven bits a byte, the last one without its
# top bit; 32 bits take five bytes at the most, 64 bits ten.
_INT = rb"(?:[\x80-\xff]{0,3}+[\x00-\x7f]|[\x80-\xff]{4}[\x00-\x0f])"
_LONG = rb"(?:[\x80-\xff]{0,8}+[\x00-\x7f]|[\x80-\xff]{9}[\x00\x01])"
_BITS = 7  # of a number, in each of its bytes
_ASCII = b"(?:%b)" % b"|".join(b"\\x%02x[\\x00-\\x7f]{%d}" % (2 * n, n) for n in range(LENGTHS))
_BYTES = b"(?:%b)" % b"|".join(b"\\x%02x.{%d}" % (2 * n, n) for n in range(LENGTHS))
_FLAT = {
    "null": b"",
    "boolean": rb"[\x00\x01]",
    "int": _INT,
    "long": _LONG,
    "float": b".{4}",
    "double": b".{8}",
    "bytes": _BYTES,
}


@dataclass(frozen=True, slots=True)
class Pattern:
    """Two patterns of one type. `ascii` matches values with strings of ASCII alone; `any` takes any bytes in their
    place, and has each string, with its length before it, as a group."""

    ascii: bytes
    any: bytes

    @staticmethod
    def both(pattern: bytes) -> Pattern:
        """For what holds no string."""
        return Pattern(pattern, pattern)

    @staticmethod
    def joined(parts: list[Pattern]) -> Pattern:
        """One after the other."""
        return Pattern(b"".join(part.ascii for part in parts), b"".join(part.any for part in parts))


_STRING = Pattern(_ASCII, b"(%b)" % _BYTES)


class Budget:
    """How many more strings the patterns of a schema may hold, and how many types the one that is being made."""

    def __init__(self) -> None:
        self.strings = STRINGS_MAX
        self.types = TYPES_MAX


def pattern_of(node: Node, budget: Budget) -> Pattern | None:
    """A pattern that matches nothing but values of the type, though not all of them; None where there is none."""
    strings, budget.types = budget.strings, TYPES_MAX
    found = _pattern_of(node, budget, [])
    if found is None:
        budget.strings = strings
    return found


def _pattern_of(node: Node, budget: Budget, above: list[Node]) -> Pattern | None:
    budget.types -= 1
    if node in above or len(above) > _BRANCHES_MAX or budget.types < 0:
        return None  # a type within itself, or too many
    if node.type in ("string", "bytes"):
        budget.strings -= 1
        if budget.strings < 0:
            return None
    if node.type == "string":
        return _STRING
    limits = range_of(node.type, node.logical)
    if limits is not None:
        return _within(*limits)
    if node.type in _FLAT:
        return Pattern.both(_FLAT[node.type])
    if node.type == "fixed":
        return Pattern.both(b".{%d}" % node.size) if node.size <= _FIXED_MAX_BYTES else None
    if node.type == "enum":
        return _one_of([Pattern.both(b"")] * len(node.symbols))
    if node.type == "union":
        return _one_of([_pattern_of(branch, budget, [*above, node]) for branch in node.branches])
    if node.type == "record":
        parts = [_pattern_of(of_field, budget, [*above, node]) for _, of_field in node.fields]
        known = [part for part in parts if part is not None]
        return Pattern.joined(known) if len(known) == len(parts) else None
    return None


def _within(least: int, most: int) -> Pattern | None:
    """Numbers as far from 0 as both limits are at the least, by a power of two: most dates are."""
    bits = min(-least, most).bit_length()  # one less for the power, one more for the sign
    if least >= 0:
        return None
    whole, rest = divmod(bits, _BITS)
    shorter = rb"[\x80-\xff]{0,%d}+[\x00-\x7f]" % (whole - 1)
    return Pattern.both(rb"(?:%b|[\x80-\xff]{%d}[\x00-\x%02x])" % (shorter, whole, (1 << rest) - 1))


def _one_of(patterns: list[Pattern | None]) -> Pattern | None:
    """The number of an alternative, and what follows it."""
    known = [pattern for pattern in patterns if pattern is not None]
    if len(known) < len(patterns) or not 0 < len(patterns) <= _BRANCHES_MAX:
        return None

    def one_of(alternatives: list[bytes]) -> bytes:
        return b"(?:%b)" % b"|".join(b"\\x%02x%b" % (2 * n, each) for n, each in enumerate(alternatives))

    return Pattern(one_of([pattern.ascii for pattern in known]), one_of([pattern.any for pattern in known]))
