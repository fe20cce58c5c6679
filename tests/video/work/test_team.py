"""Work in processes: a sign of life starts the clock again. (Crashes and hangs: test_scan.py.)"""

from __future__ import annotations

import time

from tubelet.video.work.team import Advance, Beat, Lost, each

LIMIT_SECONDS = 1.5


def slow(task: str, beat: Beat) -> str:
    """Twice the limit in all; "silent" says nothing in between."""
    for step in range(6):
        time.sleep(LIMIT_SECONDS / 3)
        if task != "silent":
            beat(step / 6)
    return task.upper()


def test_only_silence_counts_against_the_limit() -> None:
    said = list(each(["chatty", "silent"], slow, workers=2, limit_seconds=LIMIT_SECONDS))
    results = {place: one for place, one in said if not isinstance(one, Advance)}
    assert results == {0: "CHATTY", 1: Lost(f"not decoded within {LIMIT_SECONDS:g} seconds")}
    assert [one.amount for place, one in said if place == 0 and isinstance(one, Advance)] == [k / 6 for k in range(6)]


def test_no_tasks() -> None:
    assert list(each([], slow, workers=2, limit_seconds=1.0)) == []
