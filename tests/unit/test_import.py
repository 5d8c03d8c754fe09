"""Reading files of clicks, and cutting them into batches at the same places every time."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickmill.contract.params import MAX_BATCH_ITEMS, MAX_CLICKS_PER_ITEM
from stack.errors import StackError
from stack.imports import chunks, rows
from stack.imports.rows import Row, RowError

NOON = 1_733_832_000  # 2024-12-10T12:00:00Z
drawn = st.lists(
    st.none()
    | st.tuples(st.integers(0, 3), st.integers(0, 200), st.sampled_from([0, 1, 5, 10**7])),
    max_size=60,
)


def table(*lines: str) -> list[Row | None]:
    return list(rows.csv_rows([f"{line}\n".encode() for line in lines]))


def test_csv_by_the_names_of_its_columns() -> None:
    found = table(
        "ts,bannerID,v", "2024-12-10T12:00:00Z,17,3", "2024-12-10T15:00:00+03:00,18,0",
        f"{NOON},19,1", "", "# complete until 2024-12-10T12:00:00Z,3,4",
    )  # fmt: skip
    assert found == [Row(2, 17, NOON, 3), Row(3, 18, NOON, 0), Row(4, 19, NOON, 1), None, None]
    assert table("clicks,Name,Banner,TIME", f'2,"a, b",5,{NOON}') == [Row(2, 5, NOON, 2)]
    assert table("\ufeffbannerID,ts", f"5,{NOON}") == [Row(2, 5, NOON, 1)]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [([], "line 1: no column bannerID and ts"), (["bannerID"], "line 1: no column ts"),
     (["ts,bannerID", "now,1"], "line 2: ts is 'now'"),
     (["ts,bannerID", "2024-12-10T12:00:00,1"], "line 2: ts is"),
     (["ts,bannerID", f"{NOON},x"], "line 2: bannerID is 'x'"),
     (["ts,bannerID", f"{NOON}"], "line 2: 1 columns"),
     (["ts,bannerID,count", f"{NOON},1,-1"], "line 2: count is '-1'"),
     (["ts,bannerID,count", f"{NOON},1,1", f"{NOON},1,10000001"], "line 3: count is")],
)  # fmt: skip
def test_a_line_that_cannot_be_read_is_named(lines: list[str], reason: str) -> None:
    with pytest.raises(RowError, match=f"^{re.escape(reason)}.*Nothing was imported"):
        table(*lines)


def test_ndjson() -> None:
    lines = [
        b'{"bannerID": 17, "ts": "2024-12-10T12:00:00Z", "count": 3}\n',
        b'{"ts": 1733832000, "bannerID": "18", "v": 2, "name": null}\n', b"\n",
        b'{"complete": true, "rows": 2, "Counts": 5}\n',
    ]  # fmt: skip
    assert list(rows.ndjson_rows(lines)) == [Row(1, 17, NOON, 3), Row(2, 18, NOON, 2), None, None]
    for bad in (b"[]", b"{", b'{"ts": 1}', b'{"bannerID": 1}', b'{"bannerID": 1.5, "ts": 1}'):
        with pytest.raises(RowError, match="line 1: "):
            list(rows.ndjson_rows([bad]))


def log(method: str, target: str, status: object) -> bytes:
    return (
        f'::1 - - [10/Dec/2024:15:00:00 +0300] "{method} {target} HTTP/1.1" {status} 5\n'.encode()
    )


def test_clicks_of_an_access_log() -> None:
    lines = [
        log("POST", "/counter/17", 200), log("GET", "/pixel/18.gif?cb=1", 200),
        log("GET", "/click/19", 302), log("HEAD", "/counter/1", 405), log("GET", "/click/1", 404),
        log("GET", "/", 200), b"no log line\n", log("GET", "/counter/1", "-"),
    ]  # fmt: skip
    found = list(rows.log_rows(lines, re.compile(rows.PATTERN)))
    assert [row and row.banner for row in found] == [17, 18, 19, *[None] * 5]
    assert found[0] == Row(1, 17, NOON, 1)
    own = re.compile(r"[?&]ad=(\d+)")
    assert [row and row.banner for row in rows.log_rows([log("GET", "/go?ad=7", 302)], own)] == [7]


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (b"bannerID,ts\n", "csv"),
        (b'{"a": 1}\n', "ndjson"),
        (log("GET", "/", 200), "log"),
        (b"", "csv"),
    ],
)
def test_the_kind_of_a_file_shows_in_its_first_line(first: bytes, kind: str) -> None:
    assert rows._kind_of(first) == kind


@given(drawn)
def test_batches_have_all_clicks_and_stay_in_bounds(
    given: list[tuple[int, int, int] | None],
) -> None:
    read = [Row(n, r[0], NOON + r[1], r[2]) if r else None for n, r in enumerate(given, 1)]
    cut = list(chunks.cut(read, "digest"))
    assert sum(chunk.lines for chunk in cut) == len(read)
    assert len({chunk.key for chunk in cut}) == len(cut)
    asked: Counter[tuple[int, int]] = Counter()
    for chunk in cut:
        assert sum(item["count"] for item in chunk.items) == chunk.clicks <= chunks.MAX_CLICKS
        assert all(1 <= item["count"] <= MAX_CLICKS_PER_ITEM for item in chunk.items)
        for item in chunk.items:
            asked[item["bannerID"], item["ts"] // 60] += item["count"]
    wanted: Counter[tuple[int, int]] = Counter()
    for row in read:
        if row is not None and row.clicks:
            wanted[row.banner, row.at // 60] += row.clicks
    assert asked == wanted


def test_a_batch_fits_a_request_and_its_key_is_of_the_content_and_the_place() -> None:
    def many() -> list[Row | None]:
        return [Row(n, n, NOON, 1 + n % 3) for n in range(25_000)]

    first, again, other = (list(chunks.cut(many(), digest)) for digest in ("a", "a", "b"))
    assert first == again
    assert [len(chunk.items) for chunk in first] == [MAX_BATCH_ITEMS, MAX_BATCH_ITEMS, 5_000]
    keys: set[Any] = {chunk.key for chunk in [*first, *other]}
    assert len(keys) == 6
    assert all(len(key) == 64 for key in keys)


def test_a_file_without_clicks_says_what_to_do(tmp_path: Path) -> None:
    from clickmill.settings import Settings
    from stack.imports.run import Options, run

    path = tmp_path / "log"
    path.write_bytes(log("GET", "/", 200))
    with pytest.raises(StackError, match="--pattern"):
        run(Settings(), Options(path, "", "auto", ""))
    with pytest.raises(StackError, match="can't be read"):
        run(Settings(), Options(tmp_path / "none", "", "auto", ""))
