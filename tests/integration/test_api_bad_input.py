"""Wrong questions: each gets a clear error of the contract's shape, never a 5xx or a guess."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.support.fix_api import Api, check_error

T0 = int(datetime(2024, 12, 10, 12, 56, tzinfo=UTC).timestamp())
FROM, TO = "2024-12-10T12:56:00Z", "2024-12-10T12:57:59Z"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("tsFrom=", "invalid_range"),
        ("tsFrom=yesterday", "invalid_range"),
        ("tsFrom=2024-12-10T12:56:00", "invalid_range"),
        (f"tsFrom={FROM}&tsFrom={FROM}", "invalid_range"),
        (f"tsFrom={TO}&tsTo={FROM}", "invalid_range"),
        ("tsFrom=2999-01-01T00:00:00Z", "invalid_range"),
        ("tsFrom=" + "1" * 300, "invalid_range"),
        ("step=2m", "invalid_step"),
        ("step=", "invalid_step"),
        ("step=1m&step=1m", "invalid_step"),
        ("step=1M", "invalid_step"),
        ("tz=Mars/Base", "invalid_tz"),
        ("tz=..%2F..%2Fetc%2Fpasswd", "invalid_tz"),
        ("tz=%00", "invalid_tz"),
        ("tz=UTC&tz=UTC", "invalid_tz"),
        ("fill=one", "invalid_fill"),
        ("fill=", "invalid_fill"),
        ("format=xml", "invalid_format"),
        ("format=json&format=json", "invalid_format"),
        ("tsfrom=1", "unknown_parameter"),
        ("=", "unknown_parameter"),
        ("tsFrom=%ff", "invalid_query"),
        ("tsFrom=%ed%a0%80", "invalid_query"),
        ("&".join(f"a{n}=1" for n in range(1_200)), "invalid_query"),
        ("tsFrom=1&tsTo=1893456000", "too_many_points"),
        ("tsFrom=2024-01-01T00:00:00Z&tsTo=2024-12-31T00:00:00Z", "too_many_points"),
    ],
)
def test_bad_parameters(api: Api, query: str, code: str) -> None:
    for path in ("/stats/17", "/stats"):
        sentence = check_error(api.client.get(f"{path}?{query}"), 400, code)
        assert len(sentence) > 20
    if code == "too_many_points" and "2024" in query:
        assert "step=1h" in sentence


@pytest.mark.parametrize(
    ("text", "status", "code"),
    [
        ("abc", 400, "invalid_banner_id"),
        ("-1", 400, "invalid_banner_id"),
        ("1.5", 400, "invalid_banner_id"),
        ("%2B1", 400, "invalid_banner_id"),
        ("%C2%B2", 400, "invalid_banner_id"),
        ("%D9%A1", 400, "invalid_banner_id"),
        ("1%20", 400, "invalid_banner_id"),
        ("%00", 400, "invalid_banner_id"),
        ("1" * 400, 404, "unknown_banner"),
        ("100000", 404, "unknown_banner"),
    ],
)
def test_bad_banner_ids(api: Api, text: str, status: int, code: str) -> None:
    check_error(api.client.get(f"/stats/{text}"), status, code)
    check_error(api.client.get(f"/banners/{text}"), status, code)
    if "%" not in text:
        check_error(api.client.get("/stats", params={"bannerID": text}), status, code)


def test_an_id_of_thousands_of_zeros_is_banner_0(api: Api) -> None:
    assert api.client.get(f"/stats/{'0' * 5_000}").json()["bannerID"] == 0
    assert api.client.get(f"/stats/{'0' * 5_000}17").json()["bannerID"] == 17


def test_bad_ids_of_several(api: Api) -> None:
    check_error(api.client.get("/stats?bannerID="), 400, "invalid_banner_id")
    many = "&".join(f"bannerID={n}" for n in range(1_001))
    check_error(api.client.get(f"/stats?{many}"), 400, "too_many_banners")
    ids = "&".join(f"bannerID={n}" for n in range(200))
    sentence = check_error(api.client.get(f"/stats?{ids}"), 400, "too_many_points")
    assert "step=5m" in sentence


def test_too_many_banners_in_all(api: Api) -> None:
    first = T0 - 600 * 86_400
    api.put({(n, first): 1 for n in range(200)})
    span = {"tsFrom": first, "tsTo": first + 6_000}
    sentence = check_error(api.get("/stats", **span), 400, "too_many_points")
    assert "step=5m" in sentence
    assert api.get("/stats", step="5m", **span).json()["Counts"] == 200


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "x", "", "1.5", "1&limit=1", "9" * 50])
def test_bad_limits(api: Api, limit: str) -> None:
    check_error(api.client.get(f"/top?limit={limit}"), 400, "invalid_limit")


@pytest.mark.parametrize(
    "body",
    [
        b"[]", b"null", b"1", b'"x"', b"{", b"\xff", b'{"tsFrom": null, "tsTo": null}',
        b'{"tsFrom": 1.5, "tsTo": 2}', b'{"tsFrom": true, "tsTo": 2}', b'{"tsFrom": {}}',
        b'{"tsFrom": 1e400}', b"[" * 10_000,
        b'{"tsFrom": "\\ud800", "tsTo": 1}', b"tsFrom=1&tsTo=2", b'{"tsFrom":1,"tsTo":2}x',
    ],
)  # fmt: skip
def test_bad_bodies(api: Api, body: bytes) -> None:
    for method in ("GET", "POST"):
        check_error(api.client.request(method, "/stats/17", content=body), 400, "invalid_body")


def test_a_body_that_doubles_the_query(api: Api) -> None:
    body = {"tsFrom": FROM, "tsTo": TO}
    answer = api.client.request("POST", "/stats/17", params={"tsTo": TO}, json=body)
    check_error(answer, 400, "invalid_range")


def test_a_big_body(api: Api) -> None:
    for path, method in (("/stats/17", "POST"), ("/stats/17", "GET"), ("/banners/17", "PUT")):
        answer = api.client.request(method, path, content=b"x" * 10_000_000)
        check_error(answer, 413, "body_too_large")
    in_chunks = (b"x" * 65_536 for _ in range(32))
    check_error(api.client.post("/stats/17", content=in_chunks), 413, "body_too_large")
