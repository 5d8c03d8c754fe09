"""Reads the settings: command line, environment, `.env`, and the files that hold tokens.

Flags override the environment, which overrides `.env`; an empty value counts as unset. Tokens have
no flag, because every user of the machine can see the command lines of all processes.
"""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from dotenv import dotenv_values

from clickmill import wire
from clickmill.fields import KIB, PREFIX, Field
from clickmill.settings import FIELDS, Settings

# Not settings: what a supervisor hands to its child (heartbeat.py), and switches of the build.
INTERNAL: Final = frozenset(
    {"CLICKMILL_PARENT_PID", "CLICKMILL_HEARTBEAT_FD", "CLICKMILL_LINETRACE"}
)


class SettingsError(ValueError):
    """One or more settings are wrong; the text has a sentence for each."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds an option for every setting but tokens. Values stay text, which `load` reads."""
    for field in FIELDS:
        if field.is_token:
            hidden = argparse.SUPPRESS
            parser.add_argument(field.flag, action=_NoFlag, default=hidden, help=hidden)
            continue
        default = field.show(field.default) or "none"
        help_text = f"{field.meta.description} (default {default}; {field.env})"
        parser.add_argument(field.flag, dest=field.name, metavar="X", help=help_text)


class _NoFlag(argparse.Action):
    """A token on the command line: refused without repeating it."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        env = PREFIX + self.dest.upper()
        parser.error(
            f"{self.option_strings[0]} is not an option, because all users of this machine can see "
            f"command lines: set {env}, or {env}_FILE to the path of a file."
        )


def load(
    flags: Mapping[str, str | None] | None = None,
    environ: Mapping[str, str] | None = None,
    dotenv: Path | None = None,
) -> Settings:
    """The settings from flags, then environment, then `.env` (default: in the working directory).

    Raises SettingsError with one sentence for each wrong value.
    """
    environ = os.environ if environ is None else environ
    in_file = read_dotenv(dotenv or Path(".env"))
    values: dict[str, Any] = {}
    problems: list[str] = []
    for field in FIELDS:
        try:
            for name, text in _given(field, flags or {}, environ, in_file):
                values[field.name] = _parsed(field, name, text)
                break
        except SettingsError as error:
            problems.append(str(error))
    settings = Settings(**values) if not problems else Settings()
    problems += [] if problems else _across(settings)
    if problems:
        raise SettingsError("\n".join(problems))
    return settings


def _given(
    field: Field,
    flags: Mapping[str, str | None],
    environ: Mapping[str, str],
    in_file: Mapping[str, str],
) -> Iterator[tuple[str, str]]:
    """(name, text) of all that sets this field, the strongest first. Raises SettingsError."""
    if flag := (flags.get(field.name) or "").strip():
        yield field.flag, flag
    for source, where in ((environ, ""), (in_file, " in .env")):
        text = source.get(field.env, "").strip()
        path = source.get(field.file_env, "").strip() if field.is_token else ""
        if text and path:
            raise SettingsError(f"{field.env} and {field.file_env} are both set{where}: unset one.")
        if text:
            yield f"{field.env}{where}", text
        if path:
            name = f"{field.file_env}{where}"
            yield name, _tokens_in(name, Path(path))


def _parsed(field: Field, name: str, text: str) -> object:
    try:
        return field.parse(text)
    except ValueError:
        problem = f"{name} is {field.quote(text)}: it must be {field.allowed}."
        raise SettingsError(problem) from None


def _tokens_in(name: str, path: Path) -> str:
    """The tokens of a file, one a line, as the setting's text. Raises SettingsError."""
    try:
        tokens = path.read_text("utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8"
        problem = f"{name} is {path}, which can't be read ({why}): name a file with a token."
        raise SettingsError(problem) from error
    if not tokens:
        raise SettingsError(f"{name} is {path}, which is empty: write a token into it.")
    return ",".join(tokens)


def _across(settings: Settings) -> list[str]:
    """A sentence for each pair of settings that can't both hold."""
    problems = []
    if settings.port == settings.stats_port:
        problems.append(
            f"CLICKMILL_PORT and CLICKMILL_STATS_PORT are both {settings.port}: use two ports."
        )
    minutes, rollups = settings.retention_days, settings.retention_rollup_days
    # Rollups stand in for minutes that are gone, so they must not go before them.
    if rollups and not 0 < minutes <= rollups:
        least = f"{minutes} or more, or 0" if minutes else "0"
        problems.append(
            f"CLICKMILL_RETENTION_ROLLUP_DAYS is {rollups} and CLICKMILL_RETENTION_DAYS is "
            f"{minutes}: rollups must be kept as long as minutes are, so take {least}."
        )
    epoch = wire.frames_bytes(settings.max_banner_id + 1)
    if epoch > settings.spool_max_bytes:
        size = next(field for field in FIELDS if field.name == "spool_max_bytes")
        problems.append(
            f"{size.env} is {size.show(settings.spool_max_bytes)} and CLICKMILL_MAX_BANNER_ID is "
            f"{settings.max_banner_id}: one click on each banner takes {epoch} bytes, and could "
            f"never be written. Set {size.env} to {-(-epoch // KIB)}KiB or more, or "
            f"CLICKMILL_MAX_BANNER_ID to {wire.pairs_in(settings.spool_max_bytes) - 1} or less."
        )
    return problems


def read_dotenv(path: Path) -> dict[str, str]:
    """Names and values of a `.env` file; empty if there is none. SettingsError if unreadable."""
    if not path.is_file():
        return {}
    try:
        pairs = dotenv_values(path, interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} can't be read ({error}): repair or remove it.") from error
    return {name: value for name, value in pairs.items() if value is not None}


def unknown(names: Sequence[str]) -> list[str]:
    """A sentence for each name that looks like a setting and is none: a typing slip, mostly."""
    known = {field.env for field in FIELDS} | {f.file_env for f in FIELDS if f.is_token}
    sentences = []
    for name in sorted(set(names) - known - INTERNAL):
        if not name.startswith(PREFIX):
            continue
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else "it has no effect."
        sentences.append(f"{name} is not a setting of Clickmill: {hint}")
    return sentences
