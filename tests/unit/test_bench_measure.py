"""The judging parts of the benchmark: what counts as a difference, a wrong answer, a met goal."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from bench.harness import machine
from bench.harness.measure import MiscountError, Spread, check_count, ratios, spread
from bench.load import wrk
from bench.load.statistics import Gain, StatisticsError
from bench.report import goals, page, picture, results, tables


def test_an_address_that_is_not_http_is_named() -> None:
    with pytest.raises(StatisticsError, match="http://"):
        Gain("ftp://nowhere", [1])


def test_ratios_are_taken_within_a_round() -> None:
    assert ratios([2.0, 4.0, 9.0], [1.0, 4.0, 3.0], float) == Spread(2.0, 1.0, 3.0)


@pytest.mark.parametrize("counted", [100, 164])
def test_a_count_within_the_connections_is_right(counted: int) -> None:
    check_count(1_000, 1_000 + counted, 100, 64)


@pytest.mark.parametrize("counted", [99, 165])
def test_a_count_outside_is_an_error(counted: int) -> None:
    with pytest.raises(MiscountError):
        check_count(0, counted, 100, 64)


def round_of(requests: int, received: int) -> wrk.Round:
    return wrk.Round(requests, 1.0, received, 0, 0, 0, 0, 1, 1, 1, 1)


def test_a_response_of_another_length_is_detected() -> None:
    wrk.check_lengths(round_of(1_000, 160_000), 160)
    wrk.check_lengths(round_of(1_000, 160_000 + 64 * 160), 160)
    for received in (159_999, 160_001 + 64 * 160):
        with pytest.raises(wrk.WrongAnswersError):
            wrk.check_lengths(round_of(1_000, received), 160)


def test_cpu_of_this_process_goes_up() -> None:
    window = machine.CpuWindow(lambda: [os.getpid()])
    sum(range(200_000))
    assert 0 < window.used_ns() < 10e9
    assert os.getpid() in machine.tree(os.getppid())


def test_cpu_of_a_child_that_ended_is_not_lost() -> None:
    window = machine.CpuWindow(lambda: machine.tree(os.getpid()))
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    subprocess.run([sys.executable, "-c", burn], check=True)
    assert window.used_ns() > 0.18e9


def side_row(key: str, cpu: float, ratio: float) -> dict[str, Any]:
    figure = {"median": cpu, "low": cpu, "high": cpu}
    names = ("cpu_us", "whole_us", "busy", "rate", "p50_us", "p99_us")
    ratios_of = {"median": ratio, "low": ratio - 0.01, "high": ratio + 0.01}
    same = dict.fromkeys(("ratio", "whole_ratio", "p99_ratio"), ratios_of)
    return {"key": key, "name": f"<{key}>", "does": "x", **dict.fromkeys(names, figure), **same}


def test_goals_show_met_missed_missing_and_unmeasured() -> None:
    rows = [side_row("go", 9.0, 0.604), side_row("gin", 10.0, 0.86)]
    measured = {"side": {"rows": rows, "missing": {"nginx": "nginx is missing"}}}
    table = list(goals.goals(measured))
    assert (table[0].met, table[1].met) == (True, False)
    assert [g.measured for g in table if "`return 200`" in g.subject] == ["nginx is missing"]
    assert table[-1].measured == goals.NOT_RUN


def test_tables_name_what_is_missing() -> None:
    found = {"rows": [side_row("go", 9.0, 0.9)], "missing": {"gin": "go is missing"}}
    assert any(
        "**Not measured**" in text and "go is missing" in text for text in tables.side(found)
    )


def test_any_results_are_shown_whatever_they_are() -> None:
    found = {"pairs_per_cpu_second": 2.5e6, "lag": [{"sources": 1000, "lag_seconds": 0.25}]}
    lines = tables.aggregator(found)
    assert "- pairs per cpu second: 2,500,000" in lines
    assert "| 1,000 | 0.25 |" in lines
    met = {g.subject: g.met for g in goals.goals({"aggregator": found})}
    assert met["aggregator: pairs committed per second and core"] is True
    assert met["aggregator: lag with 1,000 sources, default configuration of NATS"] is True
    assert met["aggregator: lag with 10,000 sources, default configuration of NATS"] is None


@pytest.mark.parametrize(("ratio", "met"), [(1.05, True), (1.06, False)])
def test_the_price_of_flushing_is_held_to_its_goal(ratio: float, met: bool) -> None:
    figure = {"median": ratio, "low": 0.9, "high": 1.2}
    of_price = [g for g in goals.goals({"price": {"cpu_ratio": figure}}) if "sealing" in g.subject]
    assert [g.met for g in of_price] == [met]


def test_ratios_are_shown_with_their_spread() -> None:
    spread_of = {"median": 1.02, "low": 0.9, "high": 1.2}
    side_of = dict.fromkeys(("cpu_us", "helping_us", "rate", "p99_us"), spread_of)
    ratios_of = dict.fromkeys(("cpu_ratio", "rate_ratio", "p99_ratio"), spread_of)
    lines = tables.price({"first": side_of, "second": side_of, **ratios_of})
    assert f"| {tables.RATIO} | 1.02 (0.90 to 1.20) |" in "\n".join(lines)


def test_redirects_and_slow_sockets_are_held_to_their_goals() -> None:
    good, bad = ({"median": m, "low": 0.9, "high": 3.0} for m in (1.3, 2.01))
    row = {
        "name": "redirect",
        **dict.fromkeys(("p50_us", "p99_us", "p50_ratio", "p99_ratio"), good),
    }
    found = {"slow_sockets": 2_000, "rows": [row], "redirect_ratio": good, "slow_ratio": bad}
    assert "| redirect | 1 (1 to 3) | 1 (1 to 3) | 1.30 (0.90 to 3.00) |" in "\n".join(
        tables.middleware(found)
    )
    met = {g.subject: g.met for g in goals.goals({"middleware": found})}
    assert (met[goals.REDIRECT], met[goals.SLOW]) == (True, False)


def test_a_lag_that_is_too_long_names_the_number_that_holds() -> None:
    lags = [{"sources": n, "lag_seconds": lag} for n, lag in ((1000, 0.5), (10000, 9), (6000, 2))]
    rows = list(goals.goals({"aggregator": {"lag": lags}}))
    assert [g.spread for g in rows if g.met is False] == ["met with 6,000 sources"]


def test_a_lag_of_which_nothing_came_through_survives_the_file(tmp_path: Path) -> None:
    lags = [{"sources": n, "lag_seconds": lag} for n, lag in ((1000, 0.5), (10000, math.inf))]
    results.keep(tmp_path, "aggregator", "make bench ONLY=aggregator", {"lag": lags})
    text = page.write(tmp_path, tmp_path).read_text()
    assert "incomplete" in text
    assert "met with 1,000 sources" in text


def test_a_section_whose_program_is_missing_says_so(tmp_path: Path) -> None:
    results.keep(tmp_path, "tail", "make bench ONLY=tail", {"missing_program": "go is missing"})
    text = page.write(tmp_path, tmp_path).read_text()
    assert "Not measured: go is missing." in text


def test_what_is_written_by_hand_stays(tmp_path: Path) -> None:
    path = tmp_path / page.PAGE
    path.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")
    text = page.write(tmp_path, tmp_path).read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text


def test_picture_is_well_formed_whatever_the_names() -> None:
    text = picture.bars([side_row("clickmill", 8.0, 1.0), side_row("fastapi", 300.0, 0.03)])
    assert len([e for e in ET.fromstring(text).iter() if e.tag.endswith("rect")]) == 3


def test_spread_of_one_round() -> None:
    assert spread([3.0]).show() == "3.00 (3.00 to 3.00)"
