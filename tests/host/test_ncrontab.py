"""When a timer is due: answers written by hand."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from localrunner.host.ncrontab import parse


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        ("*/30 * * * * *", "2026-01-02T03:04:05", "2026-01-02T03:04:30"),
        ("*/30 * * * * *", "2026-01-02T03:04:30", "2026-01-02T03:05:00"),
        ("0 */5 * * * *", "2026-01-02T03:59:59", "2026-01-02T04:00:00"),
        ("0 0 0 * * *", "2026-12-31T00:00:00", "2027-01-01T00:00:00"),
        ("0 30 9 * * 1-5", "2026-01-02T09:30:00", "2026-01-05T09:30:00"),
        ("0 30 9 * Jan Mon", "2026-01-26T09:30:00", "2027-01-04T09:30:00"),
        ("0 0 12 13 * 5", "2026-01-01T00:00:00", "2026-02-13T12:00:00"),
        ("0 0 0 29 2 *", "2026-01-01T00:00:00", "2028-02-29T00:00:00"),
        ("5,10,55 59 23 31 * *", "2026-01-31T23:59:55", "2026-03-31T23:59:05"),
        ("10/20 0 0 1 1 *", "2025-06-01T00:00:00", "2026-01-01T00:00:10"),
        ("*/5 * * * *", "2026-01-02T03:04:05", "2026-01-02T03:05:00"),
        ("0 0 8-10/2 * * sunday", "2026-01-04T08:00:00", "2026-01-04T10:00:00"),
    ],
)
def test_the_next_occurrence_is_the_first_moment_that_all_fields_allow(
    text: str, after: str, expected: str
) -> None:
    """NCrontab: six fields, or five without seconds; both day fields must match, unlike in Unix cron."""
    moment = datetime.fromisoformat(after).replace(tzinfo=UTC)

    assert parse(text).next_after(moment) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    ["", "* * *", "60 * * * * *", "* * * 0 * *", "* * * * 13 *", "* * * * * 7", "a * * * * *", "0 0 0 31 2 *"],
)
def test_what_is_no_schedule_is_refused(text: str) -> None:
    """A timer that never runs is a sweeper that never sweeps."""
    with pytest.raises(ValueError, match=r"."):
        parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("*/30 * * * * *", True), ("0 * * * * *", False), ("*/30 0 * * * *", False), ("* * * * * *", True)],
)
def test_only_schedules_within_the_minute_keep_no_status(text: str, expected: bool) -> None:
    """azure-webjobs-sdk-extensions, TimerSchedule.ShouldDisableScheduleMonitor."""
    assert parse(text).more_often_than_a_minute() is expected
