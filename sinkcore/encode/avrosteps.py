"""Steps over the values of Avro's types: where a value ends that begins at a place in the bytes.

A step raises Misfit, IndexError or UnicodeDecodeError where there is no such value, or ends behind the bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sinkcore.encode.avrobytes import INT_BYTES_MAX, Misfit, number_at, size_at

Step = Callable[[bytes, int], int]

EMPTY_ITEMS_MAX = 64
"""Items without bytes in one block of an array. A reader makes something of each, whatever the record's size."""


def boolean(data: bytes, at: int) -> int:
    """Over a boolean."""
    if data[at] > 1:
        raise Misfit("a boolean that is neither 0 nor 1", at)
    return at + 1


def number(pattern: bytes | None, limits: tuple[int, int] | None, bytes_max: int) -> Step:
    """Over a number of at most so many bytes, between `limits` if there are any.

    What the `pattern` matches is good. So are, where there is one, one or two bytes, as most numbers are.
    """
    match = None if pattern is None else re.compile(pattern).match

    def step(data: bytes, at: int) -> int:
        if match is not None:
            if data[at] < 128:
                return at + 1
            if data[at + 1] < 128:
                return at + 2
            if (found := match(data, at)) is not None:
                return found.end()
        value, end = number_at(data, at, bytes_max)
        if limits is not None and not limits[0] <= value <= limits[1]:
            raise Misfit("a date or time that cannot be", at)
        return end

    return step


def bytes_(data: bytes, at: int) -> int:
    """Over bytes of any number."""
    return size_at(data, at)[1]


def string(data: bytes, at: int) -> int:
    """Over UTF-8 text."""
    size = data[at]
    # Most lengths are even and take one byte, which spares them a call.
    start, end = size_at(data, at) if size & 0x81 else (at + 1, at + 1 + (size >> 1))
    if not data[start:end].isascii():
        data[start:end].decode()
    return end


def skip(size: int) -> Step:
    """Over so many bytes."""
    return lambda _, at: at + size


def enum(symbols: int) -> Step:
    """Over one of so many symbols."""

    def step(data: bytes, at: int) -> int:
        number, end = number_at(data, at, INT_BYTES_MAX)
        if not 0 <= number < symbols:
            raise Misfit(f"symbol {number} of {symbols}", at)
        return end

    return step


def union(branches: list[Step]) -> Step:
    """Over the number of a branch and its value."""

    def step(data: bytes, at: int) -> int:
        number, start = number_at(data, at)
        if not 0 <= number < len(branches):
            raise Misfit(f"branch {number} of a union of {len(branches)}", at)
        return branches[number](data, start)

    return step


def blocks(item: Step, empty: bool) -> Step:
    """Over the blocks of an array or map; `empty` items take no bytes, so that they need no walk."""

    def step(data: bytes, at: int) -> int:
        while True:
            count, start = number_at(data, at)
            end = None
            if count < 0:
                count, (size, start) = -count, number_at(data, start)
                end = start + size
            if count > (EMPTY_ITEMS_MAX if empty else len(data) - start):
                raise Misfit(f"{count} items in {len(data) - start} bytes", at)
            if count == 0 and end is None:
                return start
            at = start
            for _ in range(0 if empty else count):
                at = item(data, at)
            if end is not None and at != end:
                raise Misfit("a block that is not as long as it says", start)

    return step


def sequence(steps: list[Step]) -> Step:
    """Over one value after the other."""

    def step(data: bytes, at: int) -> int:
        for each in steps:
            at = each(data, at)
        return at

    return steps[0] if len(steps) == 1 else step
