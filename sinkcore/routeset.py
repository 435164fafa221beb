"""The routes of an app as a whole: what each topic gets, and what routes of one topic must not do together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

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
    if value is None:
        return ()
    try:
        entries = read_mapping(value)
    except UnusableError as unusable:
        faults.add(SETTING, unusable.fact, unusable.fix)
        return ()
    found = [(number, read_route(number, entry, faults)) for number, entry in enumerate(entries, 1)]
    usable = [(number, fields) for number, fields in found if fields is not None]
    topics = [fields["topic"] for _, fields in usable]
    rest = tuple(topic for topic in starred if topic not in topics)
    if len(usable) == len(entries) and "SINK_TOPICS" not in faults.names:
        _check_star("*" in topics, starred, rest, faults)
    spread = [
        (number, _route(fields, topic))
        for number, fields in usable
        for topic in (rest if fields["topic"] == "*" else (fields["topic"],))
    ]
    by_topic: dict[str, list[Numbered]] = {}
    for number, route in spread:
        by_topic.setdefault(route.topic, []).append((number, route))
    # What is wrong with the routes for `*` is said for one of its topics.
    return tuple(
        route for topic, same in by_topic.items() for route in _of_a_topic(same, faults, topic not in rest[1:])
    )


def _route(fields: dict[str, Any], topic: str) -> Route:
    """The route, and no start where it gives none."""
    table = fields["table"].replace("{topic}", topic)
    return Route(**{"start": "", **fields, "topic": topic, "table": table})


def _of_a_topic(routes: Sequence[Numbered], faults: Faults, is_checked: bool) -> list[Route]:
    """The routes of one topic, all with the start that one of them gives."""
    for number, route in routes:
        _check_tables(number, route, faults)
    starts = list(dict.fromkeys(route.start for _, route in routes if route.start))
    if is_checked:
        _check_reach(routes, faults)
        _check_places(routes, faults)
        if len(starts) > 1:
            fact = f"{_topic(routes)}: its routes give different starts, and a topic begins once"
            faults.add(SETTING, fact, "give it in one of them, or the same in all")
    return [replace(route, start=starts[0] if starts else "earliest") for _, route in routes]


def _topic(routes: Sequence[Numbered]) -> str:
    return f"topic {shown(routes[0][1].topic)}"


def _check_tables(number: int, route: Route, faults: Faults) -> None:
    """The table, with the topic's name in it, is one that ADX takes; and each name of the list can come about."""
    subject = f"route {number} (topic {shown(route.topic)})"
    template = route.template
    if not sources_of(template):
        if not TABLE.pattern.fullmatch(route.table):
            fact = f"{subject}: with the topic's name, table is not a name that can be used"
            faults.add(SETTING, fact, f"use {TABLE.words}")
        elif route.tables and route.table not in route.tables:
            faults.add(
                SETTING, f"{subject}: table is {shown(route.table)}, which tables lacks", "add it to tables"
            )
        return
    for name in route.tables:
        if not can_yield(template, name):
            fact = f"{subject}: tables has {shown(name)}, which table can never become"
            faults.add(SETTING, fact, "remove it, or change table")


def _check_reach(routes: Sequence[Numbered], faults: Faults) -> None:
    """Every route can match: none stands behind one that takes all, or that asks the same."""
    first: dict[When | None, int] = {}
    for number, route in routes:
        before = first.get(None, first.get(route.when))
        if before is None:
            first[route.when] = number
            continue
        what = "takes all records" if None in first else "has the same when"
        fact = f"{_topic(routes)}: of routes {before} and {number} the first {what}, so the second can never match"
        faults.add(SETTING, fact, "remove one, give the first another when, or change their order")


def _check_places(routes: Sequence[Numbered], faults: Faults) -> None:
    """A segment can hold a blob for each table, and each table can be asked in one way."""
    places = [
        (route.db, table, route.metadata, number)
        for number, route in routes
        for table in ((route.table,) if not sources_of(route.template) else route.tables)
    ]
    if len(places) > TABLES_MAX:
        fact = f"{_topic(routes)}: its routes lead to {len(places)} tables"
        faults.add(SETTING, fact, f"keep them to {TABLES_MAX}, or split the topic")
    for (_, table), same in groupby(sorted(places, key=_place), key=_place):
        first, *others = same
        for other in others:
            if other[2] != first[2]:
                both = f"routes {first[3]} and {other[3]} lead to the table {shown(table)}"
                fix = "give both the same, so that the table can be asked for their rows"
                faults.add(SETTING, f"{_topic(routes)}: {both} and differ in metadata", fix)
                break


def _place(place: tuple[str, str, str | None, int]) -> tuple[str, str]:
    return place[0], place[1]


def _check_star(has_star: bool, starred: tuple[str, ...], rest: tuple[str, ...], faults: Faults) -> None:
    if has_star and not starred:
        faults.add("SINK_TOPICS", "it is not set, and a route has the topic *", "list the topics that * takes")
    elif has_star and not rest:
        faults.add(SETTING, "its other routes name all of SINK_TOPICS, so * can never match", "remove that route")
    elif rest and not has_star:
        fact = f"no route takes its topic {shown(rest[0])}"
        faults.add("SINK_TOPICS", fact, f"add a route for it, or for *, to {SETTING}")
