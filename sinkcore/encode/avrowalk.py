"""Whether bytes are a record of an Avro schema, to the last one, without making anything of them.

A record that is too short or too long would shift every record behind it in its block.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from sinkcore.encode import avrosteps
from sinkcore.encode.avrobytes import INT_BYTES_MAX, LONG_BYTES_MAX, Misfit
from sinkcore.encode.avropattern import pattern_of
from sinkcore.encode.avrosteps import Step
from sinkcore.encode.rows import Fault
from sinkcore.schemas import SchemaError
from sinkcore.schemas.avro import Node
from sinkcore.schemas.avrological import range_of

EMPTY_VALUES_MAX = 10_000
"""Values in one that takes no bytes: a reader makes something of each, and nothing that is read bounds them."""

_STEPS: dict[str, Step] = {
    "null": lambda _, at: at,
    "boolean": avrosteps.boolean,
    "float": avrosteps.skip(4),
    "double": avrosteps.skip(8),
    "bytes": avrosteps.bytes_,
    "string": avrosteps.string,
}


class Walker:
    """Checks records of one schema: those that its pattern matches at once, the others type by type."""

    def __init__(self, root: Node) -> None:
        self._step = _Compiler().step(root)
        self._ascii, self._any = (_whole(root, ascii_only=ascii_only) for ascii_only in (True, False))

    def fit(self, values: Sequence[bytes]) -> bool:
        """Whether all of `values` are records of the schema."""
        if self._ascii is not None and all(map(self._ascii, values)):
            return True
        return not any(map(self.fault, values))

    def fault(self, value: bytes) -> Fault | None:
        """Why `value` is no record of the schema, or None."""
        found = self._any(value) if self._any is not None else None
        try:
            if found is not None:
                # Before each text stands its length, a byte of ASCII: two bad ones cannot make a good one.
                b"".join(filter(None, found.groups())).decode()
                return None
            end = self._step(value, 0)
            if end > len(value):
                raise IndexError
        except Misfit as misfit:
            return Fault("validation_failed", f"{misfit} at byte {misfit.at}")
        except IndexError:
            return Fault("validation_failed", f"the record goes on behind its {len(value)} bytes")
        except UnicodeDecodeError:
            return Fault("validation_failed", "a string that is not UTF-8")
        except RecursionError:
            return Fault("too_deep", "more levels than can be walked")
        if end < len(value):
            return Fault("validation_failed", f"{len(value) - end} bytes behind the record's end at byte {end}")
        return None


def _whole(root: Node, *, ascii_only: bool) -> Callable[[bytes], re.Match[bytes] | None] | None:
    pattern = pattern_of(root, ascii_only=ascii_only)
    return None if pattern is None else re.compile(pattern, re.DOTALL).fullmatch


class _Compiler:
    """Steps of a schema's types. A record that occurs again, inside itself too, is compiled once."""

    def __init__(self) -> None:
        self._records: dict[int, list[Step]] = {}
        self._empty: dict[int, int] = {}

    def step(self, node: Node) -> Step:
        """The step over a value of this type."""
        if node.type in _STEPS:
            return _STEPS[node.type]
        if node.type in ("int", "long"):
            bytes_max = INT_BYTES_MAX if node.type == "int" else LONG_BYTES_MAX
            return avrosteps.number(
                pattern_of(node, ascii_only=True), range_of(node.type, node.logical), bytes_max
            )
        if self._empty_values(node):
            return _STEPS["null"]
        if node.type == "record":
            return self._record(node)
        if node.type == "fixed":
            return avrosteps.skip(node.size)
        if node.type == "enum":
            return avrosteps.enum(len(node.symbols))
        if node.type == "union":
            return avrosteps.union([self.step(branch) for branch in node.branches])
        item = self.step(node.content)
        if node.type == "map":
            return avrosteps.blocks(avrosteps.sequence([avrosteps.string, item]), empty=False)
        return avrosteps.blocks(item, empty=self._empty_values(node.content) > 0)

    def _record(self, node: Node) -> Step:
        known = self._records.get(id(node))
        if known is not None:
            # Inside itself it is not ready yet, so what it becomes is looked up when it is needed.
            return lambda data, at: known[0](data, at)
        ready: list[Step] = []
        self._records[id(node)] = ready
        ready.append(avrosteps.sequence([self.step(of_field) for _, of_field in node.fields]))
        return ready[0]

    def _empty_values(self, node: Node) -> int:
        """How many values a value of the type holds, itself among them, if it takes no bytes; else 0."""
        if node.type != "record":
            return int(node.type == "null" or (node.type == "fixed" and node.size == 0))
        if id(node) not in self._empty:
            self._empty[id(node)] = 0  # inside itself it has no end
            inner = [self._empty_values(of_field) for _, of_field in node.fields]
            self._empty[id(node)] = 1 + sum(inner) if all(inner) else 0
            if sum(inner) > EMPTY_VALUES_MAX:
                raise SchemaError(f"more than {EMPTY_VALUES_MAX} of its values take no bytes")
        return self._empty[id(node)]
