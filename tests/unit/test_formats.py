"""CSV for spreadsheets: no text of a client becomes a formula there."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime

import pytest

from aggregator.reading.formats import Ranked, TopList, render_top

FORMULAS = [
    "=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1",
    "\uff1d1+1", "\uff0b1", "\uff0d1", "\uff20SUM(A1)", "\ufe621", "\u208c1", "\ufe6b1",
    " =1", "\u00a0=1", "\u200b=1", "\ufeff=1", "\u3000\uff1d1+1", " \u200b \uff1d1",
]  # fmt: skip
PLAIN = ["Spring sale", "1+1=2", "a=b", "'=1", "\u6625 \U0001f338", "\u2013 dash", "#1", "1", "."]


def cell_of(name: str) -> str:
    """The name as it stands in a CSV of top banners."""
    now = datetime.now(UTC)
    top = [Ranked(bannerID=1, name=name, Counts=1)]
    answer = TopList(tsFrom=now, tsTo=now, Counts=1, top=top, completeThrough=now)
    rows = list(csv.reader(io.StringIO(render_top(answer, "csv").body.decode(), newline="")))
    return rows[1][1]


@pytest.mark.parametrize("name", FORMULAS)
def test_what_a_spreadsheet_would_run_is_text(name: str) -> None:
    """Also in full-width characters, which some take for the same, and behind what is not seen."""
    assert cell_of(name) == "'" + name


@pytest.mark.parametrize("name", PLAIN)
def test_other_names_are_unchanged(name: str) -> None:
    assert cell_of(name) == name
