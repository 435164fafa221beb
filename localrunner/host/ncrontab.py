"""NCRONTAB schedules: when a timer is due next. Times are UTC, as in Azure unless a time zone is set there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

_MONTHS: Final = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
_DAYS: Final = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"]
_YEARS_AHEAD_MAX: Final = 40  # 29 February can be eight years away, and on a given weekday forty

Values = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Crontab:
    """All six fields must match; both day fields, unlike in Unix cron.

    Source: NCrontab, CrontabSchedule.GetNextOccurrence.
    """

    text: str
    seconds: Values
    minutes: Values
    hours: Values
    days: Values
    months: Values
    weekdays: Values

    def next_after(self, moment: datetime) -> datetime:
        """The first occurrence later than `moment`.

        Raises: ValueError: there is none in the next forty years.
        """
        at = moment.replace(microsecond=0) + timedelta(seconds=1)
        day, limit = at.date(), at.year + _YEARS_AHEAD_MAX
        while day.year <= limit:
            if day.month not in self.months:
                day = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
                continue
            if day.day in self.days and (day.weekday() + 1) % 7 in self.weekdays:
                earliest = (at.hour, at.minute, at.second) if day == at.date() else (0, 0, 0)
                time = self._time_from(earliest)
                if time is not None:
                    hour, minute, second = time
                    return datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=moment.tzinfo)
            day += timedelta(days=1)
        raise ValueError(f"'{self.text}' never occurs")

    def more_often_than_a_minute(self) -> bool:
        """Whether Azure keeps no status for it.

        Source: azure-webjobs-sdk-extensions, TimerSchedule.ShouldDisableScheduleMonitor.
        """
        restricted = (self.minutes, self.hours, self.days, self.months, self.weekdays)
        everything = tuple(tuple(range(low, high + 1)) for low, high, _ in _FIELDS[1:])
        return len(self.seconds) > 1 and restricted == everything

    def _time_from(self, earliest: tuple[int, int, int]) -> tuple[int, int, int] | None:
        for hour in self.hours:
            if hour < earliest[0]:
                continue
            for minute in self.minutes:
                if (hour, minute) < earliest[:2]:
                    continue
                for second in self.seconds:
                    if (hour, minute, second) >= earliest:
                        return hour, minute, second
        return None


@dataclass(frozen=True, slots=True)
class Constant:
    """An interval, counted from the last time the function ran."""

    interval_s: float

    def next_after(self, moment: datetime) -> datetime:
        """`moment` and one interval."""
        return moment + timedelta(seconds=self.interval_s)

    def more_often_than_a_minute(self) -> bool:
        """Whether Azure keeps no status for it."""
        return self.interval_s < 60


Schedule = Crontab | Constant

_FIELDS: Final[tuple[tuple[int, int, list[str]], ...]] = (
    (0, 59, []),
    (0, 59, []),
    (0, 23, []),
    (1, 31, []),
    (1, 12, _MONTHS),
    (0, 6, _DAYS),
)


def parse(text: str) -> Crontab:
    """The schedule that six fields, or five without seconds, describe.

    Raises: ValueError: they describe none.
    """
    parts = text.split()
    if len(parts) == 5:
        parts.insert(0, "0")
    if len(parts) != 6:
        raise ValueError(f"has {len(parts)} fields instead of six")
    fields = [_field(part, *bounds) for part, bounds in zip(parts, _FIELDS, strict=True)]
    schedule = Crontab(text, *fields)
    schedule.next_after(datetime(2000, 1, 1))
    return schedule


def _field(text: str, low: int, high: int, names: list[str]) -> Values:
    values: set[int] = set()
    for item in text.split(","):
        body, slash, step = item.partition("/")
        every = _number(step, 1, high, []) if slash else 1
        if body == "*":
            first, last = low, high
        else:
            start, dash, end = body.partition("-")
            first = _number(start, low, high, names)
            alone = high if every > 1 else first
            last = _number(end, low, high, names) if dash else alone
        if last < first:
            first, last = last, first
        values.update(range(first, last + 1, every))
    return tuple(sorted(values))


def _number(text: str, low: int, high: int, names: list[str]) -> int:
    if not text.isdecimal():
        for index, name in enumerate(names):
            if text and name.startswith(text.lower()):
                return low + index
        raise ValueError(f"'{text}' is not a value of its field")
    if not low <= int(text) <= high:
        raise ValueError(f"{text} is outside {low}-{high}")
    return int(text)
