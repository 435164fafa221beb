"""Management commands: a registry of patterns, and the text that matches none is an error that names it.

A pattern is words and `<places>`; a command is a function of what was found in the places and of the reader,
which stands behind the pattern and must be read to its end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from localrunner.adx import query
from localrunner.adx.catalog import Catalog, Database, Table
from localrunner.adx.csl import Reader, bare, split_pipeline
from localrunner.adx.errors import KustoError, syntax_error, wrong_endpoint
from localrunner.adx.frames import Result

if TYPE_CHECKING:
    from localrunner.adx.ingest import Ingestor
    from localrunner.adx.resources import Resources


class Role(Enum):
    """Which of a cluster's two endpoints a request came to."""

    ENGINE = "engine (query) endpoint"
    DM = "data-management (ingestion) endpoint"


@dataclass(frozen=True, slots=True)
class Context:
    """What a command may use."""

    catalog: Catalog
    ingestor: Ingestor
    resources: Resources
    role: Role
    database_name: str
    properties: dict[str, Any] = field(default_factory=dict)

    @property
    def database(self) -> Database:
        """The database that the request names. Raises: KustoError if there is none."""
        return self.catalog.database(self.database_name)

    def table(self, name: str) -> Table:
        """The table of that name in the request's database. Raises: KustoError if there is none."""
        return self.database.table(name)


Command = Callable[[Context, Reader, list[str]], Result]


@dataclass(frozen=True, slots=True)
class _Entry:
    words: tuple[str, ...]
    roles: frozenset[Role]
    command: Command


_ENTRIES: list[_Entry] = []
_ENGINE = frozenset({Role.ENGINE})


def command(*patterns: str, roles: frozenset[Role] = _ENGINE) -> Callable[[Command], Command]:
    """Register a function for one or more patterns such as `.show table <table> cslschema`."""

    def register(function: Command) -> Command:
        _ENTRIES.extend(_Entry(tuple(pattern.split()), roles, function) for pattern in patterns)
        # The longer pattern is the more particular one.
        _ENTRIES.sort(key=lambda entry: -len(entry.words))
        return function

    return register


def patterns() -> list[str]:
    """Every registered pattern, for the documentation's test."""
    return sorted({" ".join(entry.words) for entry in _ENTRIES})


def execute(context: Context, text: str) -> Result:
    """The result of the management command `text`, piped through query operators where it has some.

    Raises:
        KustoError: the command is unknown, belongs to the other endpoint, or cannot be carried out.
    """
    alone, pipeline = split_pipeline(bare(text).strip())
    table = _dispatch(context, alone)
    if pipeline:
        name = "command_result"
        return query.run(context.catalog, context.database_name, f"{name} | {pipeline}", {}, (name, table))
    return table


def _dispatch(context: Context, text: str) -> Result:
    for entry in _ENTRIES:
        reader = Reader(text)
        found = _match(reader, entry.words)
        if found is None:
            continue
        if context.role not in entry.roles:
            right = next(iter(entry.roles))
            raise wrong_endpoint(f"'{' '.join(entry.words)}'", right.value)
        return entry.command(context, reader, found)
    words = " ".join(text.split()[:4])
    raise syntax_error(f"'{words[:80]}' is not a management command that this double knows")


def _match(reader: Reader, words: tuple[str, ...]) -> list[str] | None:
    found: list[str] = []
    for word in words:
        if not word.startswith("<"):
            if not reader.accept(word):
                return None
            continue
        try:
            name = reader.name()
        except KustoError:
            return None
        if word == "<table>" and reader.symbol("."):
            # `Database.Table`: the command knows by the dot.
            name = f"{name}.{reader.name()}"
        found.append(name)
    return found
