"""Settings: one table, three sources, and sentences for what is wrong."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickmill import configuration, wire
from clickmill.configuration import SettingsError
from clickmill.fields import Field
from clickmill.settings import FIELDS, Settings

NOWHERE = Path("/nonexistent/.env")
TOKENS = {"stats_token", "write_token"}


def load(flags: dict[str, str | None] | None = None, **env: str) -> Settings:
    return configuration.load(flags, {f"CLICKMILL_{k.upper()}": v for k, v in env.items()}, NOWHERE)


def test_flags_override_environment_overrides_dotenv(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("CLICKMILL_PORT=7001\nCLICKMILL_STATS_PORT=7002\nCLICKMILL_WORKERS=3\n")
    environ = {"CLICKMILL_PORT": "7011", "CLICKMILL_STATS_PORT": "7012"}
    got = configuration.load({"port": "7021", "host": None}, environ, dotenv)
    assert (got.port, got.stats_port, got.workers) == (7021, 7012, 3)


def test_an_empty_value_is_no_value() -> None:
    assert load(port="", nats_url=" ") == Settings()


def test_the_default_of_every_setting_is_allowed() -> None:
    for field in FIELDS:
        if text := field.show(field.default):
            assert field.parse(text) == field.default, field.name


def test_a_child_gets_the_same_settings() -> None:
    mine = Settings(port=9, flush_interval=0.123456, fastpath=False, stats_token="a,b", workers=3)
    assert configuration.load({}, mine.to_env(), NOWHERE) == mine


def test_where_browsers_count_clicks() -> None:
    assert Settings(port=9, prefix="/counters").click_address == "http://{host}:9/counters"
    assert load({}, prefix="/counters", click_url="https://a.example/c/").click_address == (
        "https://a.example/c"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "99999"),
        ("port", "0"),
        ("port", "8o80"),
        ("port", "1e3"),
        ("port", "८०"),
        ("flush_interval", "0.01"),
        ("flush_interval", "nan"),
        ("flush_interval", "inf"),
        ("log_level", "loud"),
        ("fastpath", "maybe"),
        ("spool_max_bytes", "12 parsecs"),
        ("nats_url", "localhost:4222"),
        ("postgres_dsn", "localhost"),
        ("cors_origin", "https://a.example/path"),
        ("prefix", "c"),
        ("prefix", "/"),
        ("prefix", "/c/"),
        ("prefix", "/counter"),
        ("prefix", "/clicks/x"),
        ("prefix", "/c?d"),
        ("click_url", "clicks.example.org"),
        ("click_url", "https://{host}/"),
        ("data_dir", "a\nb"),
        ("stats_token", "has space"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({}, **{name: value})
    field = next(f for f in FIELDS if f.name == name)
    assert field.env in str(caught.value)
    assert field.allowed in str(caught.value)
    assert field.quote(value) in str(caught.value)


def test_secrets_stay_out_of_messages() -> None:
    with pytest.raises(SettingsError) as caught:
        load(stats_token="hush hush", postgres_dsn="hush://hush")
    assert "hush" not in str(caught.value)


def test_all_wrong_values_are_reported_together() -> None:
    with pytest.raises(SettingsError) as caught:
        load({"workers": "-1"}, port="x")
    assert len(str(caught.value).splitlines()) == 2
    assert "--workers" in str(caught.value)


def test_the_same_port_twice() -> None:
    with pytest.raises(SettingsError, match="both 8081"):
        load(port="8081")


def test_a_spool_that_could_not_hold_one_epoch() -> None:
    with pytest.raises(SettingsError) as caught:
        load(spool_max_bytes="1MiB")
    assert str(caught.value) == (
        "CLICKMILL_SPOOL_MAX_BYTES is 1MiB and CLICKMILL_MAX_BANNER_ID is 99999: one click on "
        "each banner takes 1200144 bytes, and could never be written. Set "
        "CLICKMILL_SPOOL_MAX_BYTES to 1173KiB or more, or CLICKMILL_MAX_BANNER_ID to 87368 or less."
    )
    assert load(spool_max_bytes="1MiB", max_banner_id="87368").max_banner_id == 87_368
    with pytest.raises(SettingsError):
        load(spool_max_bytes="1MiB", max_banner_id="87369")
    assert load(spool_max_bytes="1173KiB").spool_max_bytes == 1173 << 10


@given(st.integers(1 << 20, 1 << 30))
def test_what_a_refused_spool_is_told_to_be_is_allowed(size: int) -> None:
    banners = wire.pairs_in(size)
    assert wire.frames_bytes(banners) <= size < wire.frames_bytes(banners + 1)


@pytest.mark.parametrize(
    ("minutes", "rollups", "least"), [("30", "29", "30 or more, or 0"), ("0", "400", "take 0")]
)
def test_rollups_are_kept_as_long_as_minutes(minutes: str, rollups: str, least: str) -> None:
    with pytest.raises(SettingsError, match=least):
        load(retention_days=minutes, retention_rollup_days=rollups)
    for enough in ("0", "30", "31"):
        load(retention_days="30", retention_rollup_days=enough)


@pytest.mark.parametrize(
    ("text", "size"),
    [("2097152", 2 << 20), ("64MiB", 64 << 20), ("2g", 2 << 30), ("1 GiB", 1 << 30)],
)
def test_sizes(text: str, size: int) -> None:
    assert load(spool_max_bytes=text).spool_max_bytes == size


def test_a_typo_gets_a_hint() -> None:
    (sentence,) = configuration.unknown(["CLICKMILL_MAX_BANER_ID", "PATH", "CLICKMILL_PORT"])
    assert "CLICKMILL_MAX_BANNER_ID?" in sentence
    assert configuration.unknown(["CLICKMILL_PARENT_PID"]) == []


def test_an_unreadable_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"CLICKMILL_PORT=\xff\xfe\n")
    with pytest.raises(SettingsError, match="repair or remove"):
        configuration.load({}, {}, tmp_path / ".env")


def test_every_setting_but_tokens_is_an_option() -> None:
    parser = argparse.ArgumentParser()
    configuration.add_flags(parser)
    got = vars(parser.parse_args(["--max-banner-id", "5", "--nats-url", "nats://h:1"]))
    assert configuration.load(got, {}, NOWHERE).max_banner_id == 5
    assert set(got) == set(Settings.__struct_fields__) - TOKENS


@pytest.mark.parametrize("name", sorted(TOKENS))
@pytest.mark.parametrize("joined", [True, False])
def test_a_token_on_the_command_line_is_refused_and_not_repeated(
    capsys: pytest.CaptureFixture[str], name: str, joined: bool
) -> None:
    parser = argparse.ArgumentParser()
    configuration.add_flags(parser)
    flag = f"--{name.replace('_', '-')}"
    with pytest.raises(SystemExit) as caught:
        parser.parse_args([f"{flag}=hush"] if joined else [flag, "hush"])
    said = capsys.readouterr().err
    assert caught.value.code == 2
    assert f"CLICKMILL_{name.upper()}_FILE" in said
    assert "hush" not in said
    assert flag not in parser.format_help()


@pytest.mark.parametrize("name", sorted(TOKENS))
def test_a_token_may_come_from_a_file(tmp_path: Path, name: str) -> None:
    file = tmp_path / "token"
    file.write_text("first\nsecond\n")
    assert getattr(load({}, **{f"{name}_file": str(file)}), name) == "first,second"
    dotenv = tmp_path / ".env"
    dotenv.write_text(f"CLICKMILL_{name.upper()}_FILE={file}\n")
    assert getattr(configuration.load({}, {}, dotenv), name) == "first,second"
    over = {f"CLICKMILL_{name.upper()}": "third"}
    assert getattr(configuration.load({}, over, dotenv), name) == "third"
    assert configuration.unknown([f"CLICKMILL_{name.upper()}_FILE"]) == []


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "No such file"), (b" \n", "is empty"), (b"\xff", "not UTF-8"), (b"h\x7fsh", "hidden")],
)
def test_a_file_without_a_token_is_an_error(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    """Not a system that is open to all."""
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=why):
        load(write_token_file=str(file))


def test_a_token_and_its_file_are_not_both_set(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("second")
    with pytest.raises(SettingsError, match="both set: unset one"):
        load(stats_token="first", stats_token_file=str(tmp_path / "token"))


@given(st.sampled_from(FIELDS), st.text(max_size=60))
def test_no_text_breaks_parsing(field: Field, text: str) -> None:
    try:
        value = field.parse(text)
    except ValueError:
        return
    if shown := field.show(value):
        assert field.parse(shown) == value
