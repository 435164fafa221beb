"""Rows of tokens on disk, and from there into a table: one extent, converted by whole columns."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import duckdb

from localrunner.adx import convert, records
from localrunner.adx.catalog import EXTENT, INGESTION_TIME
from localrunner.adx.columns import literal, quoted
from localrunner.adx.plans import Plan
from localrunner.adx.store import next_id

# DuckDB's reader refuses lines over 2 MB; larger rows are inserted one by one.
_LINE_MAX_BYTES = 1_500_000


@dataclass(slots=True)
class RowsFile:
    """An open file of rows; `large` are those that DuckDB's reader would refuse."""

    path: Path
    file: BinaryIO
    rows: int = 0
    large: list[list[bytes]] = field(default_factory=list)

    def append(self, plan: Plan, streams: Iterable[BinaryIO], location: str = "") -> int:
        """The rows of every stream are in the file; how many. `location` is where they came from.

        If a stream fails none of them is, and the error is raised.
        """
        start, rows, large = self.file.tell(), self.rows, len(self.large)
        try:
            for stream in streams:
                self._append(plan, stream, location, rows)
        except BaseException:
            self.file.seek(start)
            self.file.truncate()
            self.rows = rows
            del self.large[large:]
            raise
        return self.rows - rows

    def _append(self, plan: Plan, stream: BinaryIO, location: str, rows_before: int) -> None:
        """Each row starts with one more token, because DuckDB takes an empty line for no line."""
        for decoded in plan.decode(stream):
            chunk: Sequence[records.Tokens] = decoded
            if plan.transform is not None:
                chunk = plan.transform(decoded, self.rows - rows_before + 1, location)
            lines = [records.DELIMITER.join((b"0", *row)) for row in chunk]
            if lines and max(map(len, lines)) > convert.VALUE_MAX_BYTES:
                lines = self._within_limits(plan, chunk)
            if lines:
                self.file.write(b"\n".join(lines))
                self.file.write(b"\n")
            self.rows += len(chunk)

    def _within_limits(self, plan: Plan, chunk: Sequence[records.Tokens]) -> list[bytes]:
        lines = []
        for row in chunk:
            short = records.limited(row, plan.kinds)
            line = records.DELIMITER.join((b"0", *short))
            if len(line) > _LINE_MAX_BYTES:
                self.large.append(short)
            else:
                lines.append(line)
        return lines

    def insert(
        self,
        cursor: duckdb.DuckDBPyConnection,
        plan: Plan,
        tags: tuple[str, ...],
        created_at: datetime | None,
        raw_bytes: int,
    ) -> uuid.UUID:
        """The rows are in the table, in one new extent; its id."""
        self.file.flush()
        number, identity = next_id(cursor), uuid.uuid4()
        now = datetime.now(UTC).replace(tzinfo=None)
        names = [quoted(column.name) for column in plan.table.columns]
        columns = ", ".join([*names, quoted(INGESTION_TIME), quoted(EXTENT)])
        target = f"INSERT INTO {plan.table.rows_name} ({columns})"
        select = f"SELECT {_values(plan)}, TIMESTAMP '{now}', {number} FROM "  # noqa: S608 - quoted names
        spec = ", ".join(["'none': 'VARCHAR'", *(f"'c{index}': 'VARCHAR'" for index in range(len(plan.sources)))])
        if self.file.tell():
            cursor.execute(
                f"{target} {select} read_csv({literal(str(self.path))}, delim = chr(31), quote = '', escape = '',"
                f" new_line = '\\n', header = false, auto_detect = false, nullstr = '', comment = '',"
                f" columns = {{{spec}}})"
            )
        for row in self.large:
            places = ", ".join(f"CAST(nullif(?, '') AS VARCHAR) AS c{index}" for index in range(len(row)))
            cursor.execute(f"{target} {select} (SELECT {places})", [token.decode() for token in row])
        cursor.execute(
            "INSERT INTO meta.extents VALUES (?, ?, ?, ?, ?, ?, ?)",
            [number, identity, plan.table.id, self.rows, raw_bytes, created_at or now, list(tags)],
        )
        return identity


def _values(plan: Plan) -> str:
    """One SQL expression for each column of the table."""
    by_column = {source.column: index for index, source in enumerate(plan.sources)}
    values = []
    for column in plan.table.columns:
        index = by_column.get(column.name)
        constant = None if index is None else plan.sources[index].constant
        if constant is not None:
            token = f"({literal(json.dumps(constant, ensure_ascii=False))})"
            values.append(convert.expression(token, column.type))
        elif index is None:
            values.append("''" if column.type == "string" else "NULL")
        else:
            values.append(convert.expression(f"c{index}", column.type))
    return ", ".join(values)
