"""Steps over the values of Avro's types: where a value ends that begins at a place in the bytes.

A step raises Misfit, IndexError or UnicodeDecodeError where there is no such value.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sinkcore.encode.avrobytes import INT_BYTES_MAX, Misfit, number_at, size_at
from sinkcore.encode.avropattern import Pattern

Step = Callable[[bytes, int], int]

EMPTY_ITEMS_MAX = 64
"""Items without bytes in one block of an array. A reader makes something of each, whatever the record's size."""


def boolean(data: bytes, at: int) -> int:
    """Over a boolean."""
    if data[at] > 1:
        raise Misfit("a boolean that is neither 0 nor 1", at)
    return at + 1


def int_(data: bytes, at: int) -> int:
    """Over 32 bits."""
    return at + 1 if data[at] < 128 else number_at(data, at, INT_BYTES_MAX)[1]


def long(data: bytes, at: int) -> int:
    """Over 64 bits."""
    return at + 1 if data[at] < 128 else number_at(data, at)[1]


def within(least: int, most: int, bytes_max: int) -> Step:
    """Over a number of at most so many bytes that lies between these."""

    def step(data: bytes, at: int) -> int:
        number, end = number_at(data, at, bytes_max)
        if not least <= number <= most:
            raise Misfit("a date or time that cannot be", at)
        return end

    return step


def bytes_(data: bytes, at: int) -> int:
    """Over bytes of any number."""
    return size_at(data, at)[1]


def string(data: bytes, at: int) -> int:
    """Over UTF-8 text."""
    start, end = size_at(data, at)
    text = data[start:end]
    if not text.isascii():
        text.decode()
    return end


def skip(size: int) -> Step:
    """Over so many bytes."""

    def step(data: bytes, at: int) -> int:
        if at + size > len(data):
            raise IndexError
        return at + size

    return step


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


def run(pattern: Pattern, exactly: Step) -> Step:
    """Over what the pattern matches; what it does not match is looked at exactly."""
    ascii_, any_ = (re.compile(each, re.DOTALL).match for each in (pattern.ascii, pattern.any))

    def step(data: bytes, at: int) -> int:
        found = ascii_(data, at)
        if found is not None:
            return found.end()
        found = any_(data, at)
        if found is None:
            return exactly(data, at)
        # Each string has its length, a byte of ASCII, before it, so that two bad ones cannot make a good one.
        b"".join(filter(None, found.groups())).decode()
        return found.end()

    return step
