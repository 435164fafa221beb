"""What the parser leaves unsaid of a JSON text: whether its bytes are UTF-8, and how deep it nests."""

from __future__ import annotations

import codecs
from itertools import accumulate

DEPTH_MAX = 1500
"""Levels of nesting in one value. The parser's own limit is the interpreter's: about 1,000 less the call stack on
Python 3.11, 1,497 on 3.12, 9,998 on 3.13. So up to 700 levels pass anywhere, and more than this nowhere."""

DEPTH_SIZE_MIN = 2 * DEPTH_MAX  # each level costs an opening and a closing bracket, so shorter values are flatter

_UTF8_STEP_BYTES = 1 << 20
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = [1 if byte in b"[{" else -1 for byte in range(256)]


def invalid_utf8_at(data: bytes) -> int | None:
    """Where `data` stops being UTF-8; None if it never does. Looks at 1 MiB at a time, because text in memory
    takes up to four times its bytes."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(data)
    for start in range(0, len(data), _UTF8_STEP_BYTES):
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(view[start : start + _UTF8_STEP_BYTES], start + _UTF8_STEP_BYTES >= len(data))
        except UnicodeDecodeError as error:
            return start - pending + error.start
    return None


def too_deep(value: bytes) -> bool:
    """Whether `value`, which is good JSON, nests deeper than `DEPTH_MAX`."""
    if len(value) < DEPTH_SIZE_MIN:
        return False
    # No value is deeper than it has opening brackets; looking for `[` first is the quicker way to count none.
    openings = value.count(b"{") + (value.count(b"[") if b"[" in value else 0)
    return openings > DEPTH_MAX and depth_of(value) > DEPTH_MAX


def depth_of(value: bytes) -> int:
    """Levels of nesting in `value`, which is good JSON.

    With the escapes gone every second part between quotes is a string; what remains of the others are brackets.
    """
    outside_strings = value.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[0::2]
    brackets = b"".join(outside_strings).translate(None, _NOT_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0)
