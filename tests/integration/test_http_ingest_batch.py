"""`POST /clicks`: all of a batch or none of it, in JSON and in msgpack; over both ways."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from typing import Any

import msgspec
import pytest

from tests.support.fix_worker import Worker, Workers, counts
from tests.support.raw import Answer, ask

JSON = "application/json"
MSGPACK = "application/msgpack"
MAX_BODY = 1 << 20
ENCODE = {JSON: lambda items: json.dumps(items).encode(), MSGPACK: msgspec.msgpack.encode}


def send(worker: Worker, body: bytes, kind: str = JSON) -> Answer:
    """The batch, with its content type."""
    return ask(worker.port, "POST", "/clicks", body, [("Content-Type", kind)])


def click(banner: Any, count: Any = 1) -> dict[str, Any]:
    return {"bannerID": banner, "count": count}


@pytest.mark.parametrize("kind", [JSON, MSGPACK])
def test_a_batch_counts_whole(worker: Worker, kind: str) -> None:
    items = [
        {"bannerID": 1},
        click(2, 5),
        click(1, 1_000_000),
        click(0),
        click(99_998),
        {"bannerID": 2},
    ]
    with counts(worker, {1: 1_000_001, 2: 6, 0: 1, 99_998: 1}):
        answer = send(worker, ENCODE[kind](items), kind)
    assert answer.status == 200
    assert answer.json == {"status": "counted", "clicks": 1_000_009}
    assert answer.get("access-control-allow-origin") == "*"


@pytest.mark.parametrize("kind", [JSON, MSGPACK])
def test_ten_thousand_items_and_not_one_more(worker: Worker, kind: str) -> None:
    with counts(worker, {3: 10_000}):
        answer = send(worker, ENCODE[kind]([{"bannerID": 3}] * 10_000), kind)
        assert answer.json["clicks"] == 10_000
        answer = send(worker, ENCODE[kind]([{"bannerID": 3}] * 10_001), kind)
        assert (answer.status, answer.json["code"]) == (400, "invalid_batch")
        assert "10000" in answer.json["error"]


def test_content_types(worker: Worker) -> None:
    """Those that any web page may send without a preflight, or none at all, are refused."""
    good = ["application/json; charset=utf-8", "APPLICATION/JSON"]
    bad = [
        "text/plain;charset=UTF-8", "application/xml", "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded", "", "application/jsonp",
        "text/plain, application/json",
    ]  # fmt: skip
    with counts(worker, {4: len(good)}):
        for kind in good:
            assert send(worker, b'[{"bannerID": 4}]', kind).status == 200, kind
        assert ask(worker.port, "POST", "/clicks", b'[{"bannerID": 4}]').status == 415
        for kind in bad:
            answer = send(worker, b'[{"bannerID": 4}]', kind)
            assert (answer.status, answer.json["code"]) == (415, "unsupported_media_type"), kind


def test_an_empty_batch(worker: Worker) -> None:
    with counts(worker, {}):
        assert send(worker, b"[]").json == {"status": "counted", "clicks": 0}


BAD_ITEMS: list[Any] = [
    {}, {"count": 1}, click("17"), click(-1), click(1.5), click(True), click(None), click([1]),
    click(10**30), click(1, 0), click(1, -1), click(1, 1_000_001), click(1, "2"), click(1, 1.5),
    click(1, None), click(1, True), 17, "17", None, [1, 2], [],
]  # fmt: skip


@pytest.mark.parametrize("kind", [JSON, MSGPACK])
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_a_bad_item_anywhere_is_named_and_nothing_counted(
    worker: Worker, kind: str, place: str
) -> None:
    index = {"first": 0, "middle": 50, "last": 99}[place]
    with counts(worker, {}):
        for bad in BAD_ITEMS:
            if kind == MSGPACK and bad == click(10**30):
                continue  # beyond what msgpack can hold
            items: list[Any] = [click(5)] * 100
            items[index] = bad
            answer = send(worker, ENCODE[kind](items), kind)
            assert (answer.status, answer.json["code"]) == (400, "invalid_batch"), (bad, answer)
            assert answer.json["error"].startswith(f"item {index}: "), (bad, answer)


@pytest.mark.parametrize("kind", [JSON, MSGPACK])
@pytest.mark.parametrize("banner", [100_000, 2**31, 2**32 + 1, 2**53])
def test_an_unknown_banner_anywhere_is_named(worker: Worker, kind: str, banner: int) -> None:
    with counts(worker, {}):
        for index in (0, 50, 99):
            items = [click(6)] * 100
            items[index] = click(banner)
            answer = send(worker, ENCODE[kind](items), kind)
            assert (answer.status, answer.json["code"]) == (400, "unknown_banner")
            assert answer.json["error"].startswith(f"item {index}: ")
            assert str(banner) in answer.json["error"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"null", b"17", b'"x"', b"[", b"]", b'[{"bannerID": 7}', b'[{"bannerID": 7},]',
        b'[{"bannerID": 7}] x', b'[{"bannerID": 7}][{"bannerID": 7}]', b'{"bannerID": 7}',
        b"\xff\xfe",
        b'[{"bannerID": NaN}]', b'[{"bannerID": 07}]', b"[" * 100_000, b'[{"a":' * 50_000,
        b'\xef\xbb\xbf[{"bannerID": 7}]', "[{'bannerID': 7}]".encode("utf-16"),
        b"bannerID=7", b"\x00" * 1000, b"[" + b"\xed\xa0\x80" + b"]",
    ],
)  # fmt: skip
def test_an_invalid_batch_is_400(worker: Worker, body: bytes) -> None:
    with counts(worker, {}):
        for kind in (JSON, MSGPACK):
            answer = send(worker, body, kind)
            assert (answer.status, answer.json["code"]) == (400, "invalid_batch"), answer
            assert len(answer.json["error"]) < 400


@pytest.mark.parametrize("kind", [JSON, MSGPACK])
@pytest.mark.parametrize(
    ("field", "meant"),
    [("Count", "count"), ("Counts", "count"), ("clicks", "count"), ("bannerId", "bannerID"),
     ("id", "bannerID"), ("", "count"), ("a`b - at `$[7]`", "count"), ("x" * 5000, "count")],
)  # fmt: skip
def test_an_unknown_field_is_named_and_nothing_counted(
    worker: Worker, kind: str, field: str, meant: str
) -> None:
    """With the field that was meant, as far as that can be told."""
    with counts(worker, {}):
        answer = send(worker, ENCODE[kind]([click(7), {"bannerID": 7, field: [1, {}]}]), kind)
    assert (answer.status, answer.json["code"]) == (400, "invalid_batch")
    said = answer.json["error"]
    assert said.startswith(f"item 1: there is no field {ascii(field)[:40]}"), said
    if len(field) < 10:
        assert f"did you mean {meant}?" in said
    assert len(said) < 400


def test_the_clicks_of_a_request_have_a_bound(worker: Worker, workers: Workers) -> None:
    """10,000 items of a million clicks each were counted in 20 ms, for any web page."""
    with counts(worker, {11: 10_000_000}):
        assert send(worker, ENCODE[JSON]([click(11, 1_000_000)] * 10)).status == 200
        answer = send(worker, ENCODE[JSON]([*[click(11, 1_000_000)] * 10, click(11)]))
        assert (answer.status, answer.json["code"]) == (400, "too_many_clicks")
        assert "10,000,001" in answer.json["error"]
        answer = send(worker, ENCODE[JSON]([click(11, 1_000_000)] * 10_000))
        assert (answer.status, answer.json["code"]) == (400, "too_many_clicks")
    other = workers(BATCH_MAX_CLICKS="5")
    assert send(other, ENCODE[JSON]([click(11, 3), click(11, 2)])).status == 200
    assert send(other, ENCODE[JSON]([click(11, 3), click(11, 3)])).status == 400
    assert other.clicks() == {11: 5}


def packed(data: bytes, window: int) -> bytes:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, window)
    return squeeze.compress(data) + squeeze.flush()


def send_coded(worker: Worker, body: bytes, *codings: str, kind: str = JSON) -> Answer:
    headers = [("Content-Type", kind), *(("Content-Encoding", coding) for coding in codings)]
    return ask(worker.port, "POST", "/clicks", body, headers)


@pytest.mark.parametrize("kind", [JSON, MSGPACK])
def test_a_batch_may_be_compressed(worker: Worker, kind: str) -> None:
    data = ENCODE[kind]([click(12)] * 100)
    bodies = [(gzip.compress(data), "gzip"), (gzip.compress(data), "X-GZIP"), (data, "identity"),
              (gzip.compress(data[:90]) + gzip.compress(data[90:]), "gzip"),
              (packed(data, zlib.MAX_WBITS), "deflate"), (packed(data, -zlib.MAX_WBITS), "deflate"),
              (packed(data, 9), "deflate")]  # fmt: skip
    with counts(worker, {12: 100 * len(bodies)}):
        for body, coding in bodies:
            assert send_coded(worker, body, coding, kind=kind).status == 200, coding


def test_another_coding_is_415(worker: Worker) -> None:
    data = gzip.compress(ENCODE[JSON]([click(13)]))
    with counts(worker, {}):
        for codings in (["br"], ["zstd"], ["gzip, gzip"], ["gzip", "gzip"], ["gzip,"], [""], ["é"],
                        ["identity", "gzip"], ["gzip;q=1"], ["x" * 5000]):  # fmt: skip
            answer = send_coded(worker, data, *codings)
            assert (answer.status, answer.json["code"]) == (415, "unsupported_encoding"), codings
            assert answer.get("accept-encoding") == "gzip, deflate"
            assert len(answer.json["error"]) < 400


def test_a_body_is_bounded_after_inflating(worker: Worker) -> None:
    """A kilobyte may stand for a megabyte, and for no more: not in memory either."""
    batch, before = ENCODE[JSON]([click(14)]), peak_kib(worker)
    for pack, coding in ((gzip.compress, "gzip"), (zlib.compress, "deflate")):
        with counts(worker, {14: 1}):
            whole = batch + b" " * (MAX_BODY - len(batch))
            assert send_coded(worker, pack(whole), coding).status == 200
            for size in (1, 100 << 20):
                answer = send_coded(worker, pack(whole + b" " * size), coding)
                assert (answer.status, answer.json["code"]) == (413, "body_too_large")
    many = gzip.compress(b" " * (MAX_BODY // 2)) * 3
    assert send_coded(worker, many, "gzip").status == 413
    assert peak_kib(worker) - before < 32 << 10


def peak_kib(worker: Worker) -> int:
    """The most memory that the worker has had."""
    (line,) = re.findall(r"VmHWM:\s+(\d+) kB", worker.proc.joinpath("status").read_text())
    return int(line)


def test_a_damaged_stream_counts_nothing(worker: Worker) -> None:
    whole = gzip.compress(ENCODE[JSON]([click(15)] * 100))
    flipped = [whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :] for i in range(10, len(whole))]
    cut = [whole[:n] for n in range(1, len(whole))]
    with counts(worker, {}):
        for body in [*cut, *flipped, whole + b"x", b"x" + whole]:
            answer = send_coded(worker, body, "gzip")
            assert (answer.status, answer.json["code"]) == (400, "invalid_batch"), body
        for body in (zlib.compress(b"[]") + b"x", zlib.compress(b"[]")[:-1], b"\x78\x9c", b"x"):
            assert send_coded(worker, body, "deflate").status == 400, body


def test_the_last_of_two_equal_names_counts(worker: Worker) -> None:
    with counts(worker, {9: 1}):
        assert send(worker, b'[{"bannerID": 8, "bannerID": 9}]').status == 200


@pytest.mark.parametrize("kind", [JSON, MSGPACK])
def test_the_size_of_a_body(worker: Worker, kind: str) -> None:
    body = ENCODE[kind]([click(10)])
    padded = body + b" " * (MAX_BODY - len(body)) if kind == JSON else body
    with counts(worker, {10: 1}):
        assert send(worker, padded, kind).status == 200
        for size in (MAX_BODY + 1, 10_000_000):
            answer = send(worker, body + b" " * (size - len(body)), kind)
            assert (answer.status, answer.json["code"]) == (413, "body_too_large")
