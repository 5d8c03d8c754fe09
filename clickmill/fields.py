"""One setting as a row: its name, its bounds, and text into value and back.

settings.py says what each setting means; this module only reads them.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

PREFIX: Final = "CLICKMILL_"
GIB: Final = 1 << 30
MIB: Final = 1 << 20
KIB: Final = 1 << 10
MAX_VALUE_CHARS: Final = 4096
_UNITS: Final = {"": 1, "b": 1, "k": KIB, "kib": KIB, "m": MIB, "mib": MIB, "g": GIB, "gib": GIB}
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


def text_meta(description: str, pattern: str = "", allowed: str = "", secret: bool = False) -> Meta:
    """A text that fits the pattern; `allowed` is said where it doesn't, a secret is never shown."""
    extra = {"pattern": pattern, "allowed": allowed, "secret": secret}
    return Meta(description=description, extra=extra)


def token_meta(description: str) -> Meta:
    """Bearer tokens: secret, without a flag, and with a `_FILE` form (see `configuration`)."""
    pattern = r"[!-+\--~]+(,[!-+\--~]+)*"
    allowed = "printable characters without spaces, several tokens with commas between"
    extra = {"pattern": pattern, "allowed": allowed} | dict.fromkeys(("secret", "token"), True)
    return Meta(description=description, extra=extra)


def size_meta(low: int, high: int, description: str) -> Meta:
    """A number of bytes, which may be written with its unit."""
    return Meta(ge=low, le=high, description=description, extra={"unit": "bytes"})


class Field(NamedTuple):
    """One row of the table, read off the class Settings."""

    name: str
    kind: type
    meta: Meta
    choices: tuple[str, ...]
    default: Any

    @property
    def env(self) -> str:
        """Name of the environment variable."""
        return PREFIX + self.name.upper()

    @property
    def is_token(self) -> bool:
        """Whether it is a token, which has no flag and may come from a file."""
        return bool((self.meta.extra or {}).get("token"))

    @property
    def file_env(self) -> str:
        """Name of the environment variable with the path of a token's file."""
        return self.env + "_FILE"

    @property
    def flag(self) -> str:
        """Name of the command line's option."""
        return "--" + self.name.replace("_", "-")

    @property
    def allowed(self) -> str:
        """What a value may be, as the end of a sentence."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.kind is bool:
            return "true or false"
        if self.kind is str:
            return str((self.meta.extra or {}).get("allowed") or "text without line breaks")
        low, high = (self.show(bound) for bound in (self.meta.ge, self.meta.le))
        if (self.meta.extra or {}).get("unit") == "bytes":
            return f"a size from {low} to {high}, in bytes or such as 64MiB"
        noun = "a whole number" if self.kind is int else "a number"
        return f"{noun} from {low} to {high}"

    def show(self, value: object) -> str:
        """The value as text that `parse` reads back."""
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int) and (self.meta.extra or {}).get("unit") == "bytes":
            return _show_size(value)
        return f"{value:.12g}" if isinstance(value, float) else str(value)

    def quote(self, text: str) -> str:
        """A wrong value as it may stand in a message: never a secret, never a screenful."""
        return "(hidden)" if (self.meta.extra or {}).get("secret") else repr(text.strip()[:80])

    def parse(self, text: str) -> object:
        """The value that the text stands for; ValueError if it is not allowed."""
        if len(text) > MAX_VALUE_CHARS or any(ord(char) < 32 for char in text):
            raise ValueError(text)
        if self.choices:
            if text.lower() not in self.choices:
                raise ValueError(text)
            return text.lower()
        if self.kind is str:
            return self._parse_text(text)
        return _parse_bool(text) if self.kind is bool else self._parse_number(text)

    def _parse_text(self, text: str) -> str:
        pattern = (self.meta.extra or {}).get("pattern")
        if pattern and not re.fullmatch(pattern, text):
            raise ValueError(text)
        return text

    def _parse_number(self, text: str) -> int | float:
        value: int | float
        if (self.meta.extra or {}).get("unit") == "bytes":
            value = _parse_size(text)
        else:
            if not re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{1,9})?", text, re.ASCII):
                raise ValueError(text)
            value = self.kind(text)
        assert self.meta.ge is not None
        assert self.meta.le is not None
        if not self.meta.ge <= value <= self.meta.le:
            raise ValueError(text)
        return value


def _parse_size(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,18})\s*([A-Za-z]*)", text, re.ASCII)
    if match is None or match[2].lower() not in _UNITS:
        raise ValueError(text)
    return int(match[1]) * _UNITS[match[2].lower()]


def _show_size(size: int) -> str:
    for name, unit in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size and size % unit == 0:
            return f"{size // unit}{name}"
    return str(size)


def _parse_bool(text: str) -> bool:
    if text.lower() not in _TRUE | _FALSE:
        raise ValueError(text)
    return text.lower() in _TRUE


def fields_of(table: type[msgspec.Struct]) -> tuple[Field, ...]:
    """The rows of a class whose attributes are Annotated with a Meta each."""
    hints = get_type_hints(table, include_extras=True)
    rows = []
    for field in msgspec.structs.fields(table):
        base, meta = get_args(hints[field.name])
        choices = get_args(base) if get_origin(base) is Literal else ()
        rows.append(Field(field.name, str if choices else base, meta, choices, field.default))
    return tuple(rows)
