"""Schedules of deployments/prefect.yaml where clocks change: one run for each day or week they name, wherever people
move them to; and none for the time before they were turned on."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
import yaml

from flows.service.deployments import PREFECT_FILE

CRONS = sorted(
    {
        schedule["cron"]
        for deployment in yaml.safe_load(PREFECT_FILE.read_text(encoding="utf-8"))["deployments"]
        for schedule in deployment.get("schedules", [])
    }
)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Shanghai", "UTC"])
def test_every_day_that_is_named_has_one_run(zone: str) -> None:
    from prefect.server.schemas.schedules import CronSchedule

    first, last = datetime(2027, 1, 1, tzinfo=UTC), datetime(2027, 12, 31, tzinfo=UTC)
    for cron in CRONS:
        weekday = cron.split()[-1]
        schedule = CronSchedule(cron=cron, timezone=zone)
        times = asyncio.run(schedule.get_dates(n=400, start=first, end=last))
        days = [time.astimezone(ZoneInfo(zone)).date() for time in times]
        step = timedelta(days=1 if weekday == "*" else 7)
        assert all(two - one == step for one, two in pairwise(days)), cron
        assert len(days) >= (363 if weekday == "*" else 51)


def test_what_lies_in_the_past_is_not_made_up_for() -> None:
    from prefect.server.schemas.schedules import IntervalSchedule

    schedule = IntervalSchedule(interval=timedelta(hours=6), anchor_date=datetime(2020, 1, 1, tzinfo=UTC))
    now = datetime.now(UTC)
    (first,) = asyncio.run(schedule.get_dates(n=1))
    assert now - timedelta(seconds=1) <= first <= now + timedelta(hours=6)
