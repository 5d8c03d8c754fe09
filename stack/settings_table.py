"""The settings as a Markdown table, for README.md and docs/settings.md: `make docs`."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

from clickmill.settings import FIELDS

BEGIN: Final = "<!-- settings: begin -->"
END: Final = "<!-- settings: end -->"
MOST_USED: Final = (
    "host",
    "port",
    "stats_port",
    "data_dir",
    "nats_url",
    "postgres_dsn",
    "max_banner_id",
    "stats_token",
    "write_token",
    "retention_days",
)
FILES: Final = {
    Path("README.md"): MOST_USED,
    Path("docs/settings.md"): tuple(field.name for field in FIELDS),
}


def table(names: Collection[str]) -> str:
    """The rows of these settings in the order of `Settings`; with all columns if all are named."""
    columns = ["option", "default", "what it does"]
    if len(names) == len(FIELDS):
        columns += ["environment", "allowed"]
    rows = ["| " + " | ".join(columns) + " |", "| --- " * len(columns) + "|"]
    for field in FIELDS:
        if field.name in names:
            default = f"`{field.show(field.default)}`" if field.show(field.default) else "none"
            name = f"`{field.env}` or `…_FILE`" if field.is_token else f"`{field.flag}`"
            cells = [name, default, field.meta.description or ""]
            cells += [f"`{field.env}`", field.allowed]
            rows.append("| " + " | ".join(cells[: len(columns)]) + " |")
    return "\n".join(rows)


def with_table(text: str, names: Collection[str]) -> str:
    """The document with an up-to-date table."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table(names)}\n{END}{tail}"


def main() -> None:
    """Writes the tables into the documents of the working directory."""
    for path, names in FILES.items():
        path.write_text(with_table(path.read_text(), names))


if __name__ == "__main__":
    main()
