"""The register of banners: what it takes, what it refuses, and that nothing of that is stored."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.reading.banners import (
    MAX_NAME_CHARS,
    MAX_TARGET_CHARS,
    BannerEntry,
    check_name,
    check_target,
)
from clickmill.contract.problem import Problem
from tests.support.fix_api import Api

GOOD_TARGETS = [
    "https://example.org", "http://example.org:8080/a/b?c=d&e=%20f#g", "HTTPS://EXAMPLE.ORG/",
    "https://xn--bcher-kva.example/", "http://127.0.0.1/", "http://[2001:db8::1]:80/x",
    "https://example.org/path/user@host", "https://example.org/?mail=a@b.example",
    "https://example.org./", "http://localhost/'()*,;",
    "https://example.org/" + "a" * (MAX_TARGET_CHARS - 20),
]  # fmt: skip
BAD_TARGETS = [
    "", " ", "example.org", "//example.org/", "/path", "javascript:alert(1)",
    "JaVaScRiPt:alert(1)", "data:text/html,<script>", "vbscript:x", "file:///etc/passwd",
    "ftp://example.org/", "https:example.org", "https:/example.org", "https://", "https:///x",
    "https://?x", "https://#x", "https://user@example.org/", "https://user:pw@example.org/",
    "https://@example.org/", "https://example.org@evil.example/", "https://exa mple.org/",
    "https://example.org/\r\nSet-Cookie: a=b", "https://example.org/\n", "\thttps://example.org/",
    " https://example.org/", "https://example.org/ü", "https://bücher.example/",
    "https://example.org/%", "https://example.org/%zz", "https://example.org\\@evil.example/",
    "https://example.org:0/", "https://example.org:99999/", "https://example.org:x/",
    "https://[::1", "https://[1.2.3.4]/", "https://exa%6dple.org/", "https://-/", "https://a..b/",
    "https://example.org/" + "a" * MAX_TARGET_CHARS, "https://example.org/<script>",
    "https://example.org/\x00", "https://.example.org/", 'https://example.org/"onload',
]  # fmt: skip
BAD_NAMES = [
    "", "   ", "x" * (MAX_NAME_CHARS + 1), "x" * 10_000, "a\x00b", "a\nb", "a\rb", "a\tb",
    "a\x1bb", "a\x7fb", "a\x85b", "a\u2028b", "a\u202eb", "a\u2066b",
]  # fmt: skip
BAD_BODIES = [
    b"", b"{}", b"[]", b"null", b"x", b'{"name": 5}', b'{"name": ["x"]}', b'{"name": null}',
    b'{"name": "x", "id": 5}', b'{"Name": "x"}', b'{"name": "\\ud800"}', b'{"name": "\xff"}',
    b'{"name": "x"', b'{"target_url": {"a": 1}}', b'{"target_url": true}',
]  # fmt: skip


def put(api: Api, banner: int, body: Any) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return api.client.put(f"/banners/{banner}", content=content)


def check_refused(api: Api, banner: int, answer: Any, code: str) -> None:
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"error", "code"}
    assert answer.json()["code"] == code
    assert api.client.get(f"/banners/{banner}").status_code == 404
    assert (banner, None) not in api.told


def test_the_life_of_an_entry(api: Api, banner: int) -> None:
    url = f"/banners/{banner}"
    assert api.client.get(url).json()["code"] == "unknown_banner"
    first = {"name": "Frühling – 春 🌸", "target_url": "https://example.org/a?b=c#d"}
    assert put(api, banner, first).json() == {"id": banner, **first}
    assert api.client.get(url).json() == {"id": banner, **first}
    assert api.told[-1:] == [(banner, first["target_url"])]
    only_name = {"name": "Name"}
    assert put(api, banner, only_name).json() == {"id": banner, "name": "Name", "target_url": None}
    assert api.told[-1:] == [(banner, None)]
    only_target = {"target_url": "http://example.org/"}
    assert put(api, banner, only_target).json()["name"] is None
    gone = api.client.delete(url)
    assert (gone.status_code, gone.content) == (204, b"")
    assert api.told[-1:] == [(banner, None)]
    assert api.client.delete(url).status_code == 404


def test_a_patch_changes_what_it_names(api: Api, banner: int) -> None:
    url = f"/banners/{banner}"
    name, target = {"name": "Name"}, {"target_url": "https://example.org/a"}
    assert api.client.patch(url, json=name).json()["code"] == "unknown_banner"
    put(api, banner, name)
    both = {"id": banner, **name, **target}
    assert api.client.patch(url, json=target).json() == both
    assert api.client.get(url).json() == both
    assert api.told[-1:] == [(banner, target["target_url"])]
    assert api.client.patch(url, json={"name": "Other"}).json() == {**both, "name": "Other"}
    assert api.told[-1:] == [(banner, target["target_url"])]
    gone = api.client.patch(url, json={"target_url": None}).json()
    assert gone == {"id": banner, "name": "Other", "target_url": None}
    assert api.told[-1:] == [(banner, None)]


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"{}", "invalid_body"), (b'{"name": null}', "invalid_body"), (b"", "invalid_body"),
     (b'{"name": ""}', "invalid_name"), (b'{"target_url": "javascript:x"}', "invalid_target"),
     (b'{"target_url": ""}', "invalid_target"), (b'{"nam": "x"}', "invalid_body"),
     (b'{"name": 1}', "invalid_body"), (b'{"name": "x", "target_url": "x"}', "invalid_target")],
)  # fmt: skip
def test_a_bad_patch_changes_nothing(api: Api, banner: int, body: bytes, code: str) -> None:
    url = f"/banners/{banner}"
    put(api, banner, {"name": "Name"})
    told = len(api.told)
    answer = api.client.patch(url, content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert api.client.get(url).json() == {"id": banner, "name": "Name", "target_url": None}
    assert len(api.told) == told


@pytest.mark.parametrize(
    ("field", "meant"), [("Name", "name"), ("target", "target_url"), ("targetUrl", "target_url")]
)
def test_an_unknown_field_is_named(api: Api, banner: int, field: str, meant: str) -> None:
    answer = put(api, banner, {field: {"any": "value"}, "name": "x"})
    check_refused(api, banner, answer, "invalid_body")
    said = answer.json()["error"]
    assert f"there is no field {field!r}: did you mean {meant}?" in said


def test_an_unknown_parameter_is_named_too(api: Api) -> None:
    for query, meant in (("Step=1h", "step"), ("from=1", "tsFrom"), ("tsfrom=1", "tsFrom")):
        answer = api.client.get(f"/stats/17?{query}").json()
        assert answer["code"] == "unknown_parameter"
        assert f"{query.partition('=')[0]!r} here: did you mean {meant}?" in answer["error"]


def test_pages_of_the_register(api: Api, banner: int) -> None:
    ids = [50_000 + n for n in range(5)]
    for number in ids:
        put(api, number, {"name": f"n{number}"})
    page = api.get("/banners", after=49_999, limit=3).json()
    assert [b["id"] for b in page["banners"]] == ids[:3]
    page = api.get("/banners", after=page["next"], limit=3).json()
    assert [b["id"] for b in page["banners"]][:2] == ids[3:]
    assert api.get("/banners", after=99_999).json() == {"banners": [], "next": None}
    for query in ("limit=0", "limit=1001", "after=-1", "after=x", "limit=1&limit=1"):
        assert api.client.get(f"/banners?{query}").status_code == 400


@pytest.mark.parametrize("target", GOOD_TARGETS)
def test_good_targets(target: str) -> None:
    assert check_target(target) == target


@pytest.mark.parametrize("target", BAD_TARGETS)
def test_bad_targets(api: Api, banner: int, target: str) -> None:
    check_refused(api, banner, put(api, banner, {"target_url": target}), "invalid_target")


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("https://example.org/sch\u00f6n", "'\u00f6' (U+00F6) at character 24: write %C3%B6"),
        (
            "https://b\u00fccher.example/",
            "'\u00fc' (U+00FC) at character 10: write the host as xn--",
        ),
        ("https://example.org/a b", "' ' (U+0020) at character 22: write %20"),
        ("https://example.org/\u200b", "U+200B at character 21: write %E2%80%8B"),
        ("https://example.org/100%", "'%' (U+0025) at character 24: write %25"),
        ("", "is empty"),
    ],
)
def test_a_character_that_a_target_can_not_have_is_named(target: str, sentence: str) -> None:
    with pytest.raises(Problem) as refused:
        check_target(target)
    assert sentence in refused.value.sentence


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names(api: Api, banner: int, name: str) -> None:
    check_refused(api, banner, put(api, banner, {"name": name}), "invalid_name")


@pytest.mark.parametrize("body", BAD_BODIES)
def test_bad_bodies(api: Api, banner: int, body: bytes) -> None:
    check_refused(api, banner, put(api, banner, body), "invalid_body")


def test_a_bad_part_stores_nothing_of_the_good_one(api: Api, banner: int) -> None:
    body = {"name": "good", "target_url": "javascript:alert(1)"}
    check_refused(api, banner, put(api, banner, body), "invalid_target")
    query = api.client.put(f"/banners/{banner}?name=x", json={"name": "x"})
    check_refused(api, banner, query, "unknown_parameter")


@given(st.text(max_size=80))
def test_no_target_can_split_a_header(text: str) -> None:
    for url in (text, "https://example.org/" + text, "https://" + text):
        try:
            target = check_target(url)
        except Problem:
            continue
        assert target == url
        assert target.isascii()
        assert not any(ord(char) <= 32 or ord(char) == 127 for char in target)
        assert target.lower().startswith(("http://", "https://"))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=1, max_size=MAX_NAME_CHARS))
def test_valid_names_are_returned_unchanged(api: Api, name: str) -> None:
    try:
        check_name(name)
    except Problem:
        return
    assert put(api, 60_000, {"name": name}).json()["name"] == name
    assert api.client.get("/banners/60000").json()["name"] == name


def test_targets_for_the_workers_come_in_pages(open_api: Any, api: Api) -> None:
    fresh = open_api()
    register = fresh.register
    assert fresh.run(register.targets()) == (b"{}", None)
    long = "https://example.org/" + "a" * 1_900
    for number in range(600):
        fresh.run(register.put(number, BannerEntry(target_url=long)))
    seen: dict[str, str] = {}
    after, pages = -1, 0
    while after is not None:
        body, after = fresh.run(register.targets(after))
        assert len(body) < 1_000_000
        seen |= json.loads(body)
        pages += 1
    assert pages == 2
    assert seen == {str(n): long for n in range(600)}
