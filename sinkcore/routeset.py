"""The routes of an app as a whole: what each topic gets, and what routes of one topic must not do together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sinkcore.conditions import When, can_yield, sources_of
from sinkcore.declared import Faults, UnusableError, shown
from sinkcore.mapping import SETTING, read_mapping
from sinkcore.routes import TABLE, TABLES_MAX, Route, read_route

Numbered = tuple[int, Route]
"""A route with the number of its entry, from 1 on."""


def read_routes(value: str | None, starred: tuple[str, ...], faults: Faults) -> tuple[Route, ...]:
    """The routes of `SINK_TOPICS_MAPPING`, `*` spread over the topics `starred` that no entry names.

    What cannot be used becomes a fault, and the routes are then not for use.
    """
    entries = None if value is None else faults.read(SETTING, read_mapping, value)
    if entries is None:
        return ()
    found = [(number, read_route(number, entry, faults)) for number, entry in enumerate(entries, 1)]
    usable = [(number, route) for number, route in found if route is not None]
    named = {route.topic for _, route in usable}
    rest = tuple(topic for topic in starred if topic not in named)
    if len(usable) == len(entries) and "SINK_TOPICS" not in faults.names:
        _check_star("*" in named, starred, rest, faults)
    by_topic: dict[str, list[Numbered]] = {}
    for number, route in usable:
        for topic in rest if route.topic == "*" else (route.topic,):
            table = route.table.replace("{topic}", topic)
            by_topic.setdefault(topic, []).append((number, replace(route, topic=topic, table=table)))
    for topic, routes in by_topic.items():
        for number, route in routes:
            for each in _table_faults(route):
                faults.add(SETTING, f"route {number} (topic {shown(topic)}): {each.fact}", each.fix)
        # What is wrong with the routes for `*` is said for one of its topics.
        for each in _faults_together(routes) if topic not in rest[1:] else ():
            faults.add(SETTING, f"topic {shown(topic)}: {each.fact}", each.fix)
    return tuple(
        replace(route, start=next(iter(_starts(routes)), "earliest"))
        for routes in by_topic.values()
        for _, route in routes
    )


def _starts(routes: Sequence[Numbered]) -> list[str]:
    return list(dict.fromkeys(route.start for _, route in routes if route.start))


def _table_faults(route: Route) -> Iterator[UnusableError]:
    """The table, with the topic's name in it, is none that ADX takes; or a name of the list cannot come about."""
    if not sources_of(route.template):
        if not TABLE.pattern.fullmatch(route.table):
            fact = "with the topic's name, table is not a name that can be used"
            yield UnusableError(fact, f"use {TABLE.words}")
        elif route.tables and route.table not in route.tables:
            yield UnusableError(f"table is {shown(route.table)}, which tables lacks", "add it to tables")
        return
    for name in route.tables:
        if not can_yield(route.template, name):
            fact = f"tables has {shown(name)}, which table can never become"
            yield UnusableError(fact, "remove it, or change table")


def _faults_together(routes: Sequence[Numbered]) -> Iterator[UnusableError]:
    """A route that can never match, more tables than a segment has blobs for, a table that cannot be asked in one
    way, or a topic that begins at two places."""
    first: dict[When | None, int] = {}
    by_place: dict[tuple[str, str], list[Numbered]] = {}
    for number, route in routes:
        before = first.get(None, first.get(route.when))
        if before is not None:
            what = "takes all records" if None in first else "has the same when"
            fact = f"of routes {before} and {number} the first {what}, so the second can never match"
            yield UnusableError(fact, "remove one, give the first another when, or change their order")
        first.setdefault(route.when, number)
        for table in route.leads_to:
            by_place.setdefault((route.db, table), []).append((number, route))
    count = sum(map(len, by_place.values()))
    if count > TABLES_MAX:
        yield UnusableError(f"its routes lead to {count} tables", f"keep them to {TABLES_MAX}, or split the topic")
    for (_, table), ((number, route), *others) in by_place.items():
        other = next((n for n, each in others if each.metadata != route.metadata), None)
        if other is not None:
            fact = f"routes {number} and {other} lead to the table {shown(table)} and differ in metadata"
            yield UnusableError(fact, "give both the same, so that the table can be asked for their rows")
    if len(_starts(routes)) > 1:
        fact = "its routes give different starts, and a topic begins once"
        yield UnusableError(fact, "give it in one of them, or the same in all")


def _check_star(has_star: bool, starred: tuple[str, ...], rest: tuple[str, ...], faults: Faults) -> None:
    if has_star and not starred:
        faults.add("SINK_TOPICS", "it is not set, and a route has the topic *", "list the topics that * takes")
    elif has_star and not rest:
        faults.add(SETTING, "its other routes name all of SINK_TOPICS, so * can never match", "remove that route")
    elif rest and not has_star:
        fact = f"no route takes its topic {shown(rest[0])}"
        faults.add("SINK_TOPICS", fact, f"add a route for it, or for *, to {SETTING}")
