"""What is drawn of work on clips: few lines where there is no terminal, and what it took at the end."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from tubelet.cli.terminal.progress import RichProgress
from tubelet.inference.progress import Progress, Quiet


def drawn(*, terminal: bool = False) -> tuple[RichProgress, io.StringIO]:
    text = io.StringIO()
    return RichProgress(Console(file=text, force_terminal=terminal, width=100)), text


@pytest.mark.parametrize("total", [1, 7, 100, 5000])
def test_about_twenty_lines_and_the_last_one_is_the_end(total: int) -> None:
    progress, text = drawn()
    progress.begin("embed", total, "videos")
    for _ in range(total):
        progress.advance(1, 2)
    *lines, last = text.getvalue().splitlines()
    assert len(lines) <= 20
    assert re.fullmatch(rf"embed: {total:,}/{total:,} videos  [\d.]+ clips/s  left 0:00:00", last)
    progress.end()
    assert re.fullmatch(rf"embed: {2 * total:,} clips in [\d.]+ s \([\d.]+ clips/s\)", text.getvalue().splitlines()[-1])


def test_work_that_was_not_begun_or_did_no_clip_ends_in_silence() -> None:
    progress, text = drawn()
    progress.end()
    progress.begin("embed", 3, "videos")
    progress.end()
    progress.end()
    assert text.getvalue() == ""


def test_on_a_terminal_a_bar_is_drawn_and_taken_away() -> None:
    progress, text = drawn(terminal=True)
    progress.begin("probe", 4, "clips")
    progress.advance(2, 2)
    progress.say("[a note] in brackets")
    progress.end()
    assert "[a note] in brackets" in text.getvalue()
    assert "2/4" in text.getvalue()
    assert re.search(r"probe: 2 clips in", text.getvalue())


def test_both_are_what_the_rooms_below_expect() -> None:
    assert isinstance(RichProgress(), Progress)
    assert isinstance(Quiet(), Progress)
