"""The command `clickmill`; COMMANDS says what it does.

Exit codes: 0 after a stop by signal, 1 when the command fails (the message says why and what to
do), 2 when a setting or an option is wrong, 3 when clicks are left that may not be in Postgres.
`doctor` exits with the sum of the kinds of checks that failed (stack/doctor/finding.py).
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from clickmill import configuration, logs
from clickmill.build_info import build
from clickmill.configuration import SettingsError
from clickmill.contract.access import is_loopback
from clickmill.settings import FIELDS, Settings
from stack.errors import StackError
from stack.supervise.logs import US, Log

COMMANDS: Final = {
    "up": "run the whole system on this machine",
    "ingest": "run only ingest workers, on one of many machines",
    "aggregator": "run only an aggregator; any number may run",
    "drain": "send the clicks in the data directory of a lost node to Postgres",
    "doctor": "check the installation, this machine, NATS and Postgres, and say what to do",
    "top": "show rates, latency, backlog and top banners of a running system every second",
    "backup": "write the database and all uncommitted frames to a file",
    "restore": "restore a backup into an empty database",
    "import": "count the clicks of a CSV, NDJSON or access log file, exactly once",
    "export": "write all clicks to a file, or those since the last export",
    "sources": "list the workers that report; `give-up NODE` closes those of a lost machine",
}
EPILOGS: Final = {
    "doctor": "exit code: 0 if every check passed, 2 if a setting is wrong, else the sum of what "
    "failed: 4 installation, 8 machine, 16 NATS, 32 Postgres, 64 ports or aggregators",
}
WRONG_SETTING: Final = 2
IN_THE_WAY: Final = 1
INTERRUPTED: Final = {
    "backup": "Interrupted.",
    "restore": "Interrupted.",
    "import": "Interrupted: run the same command again, and it continues.",
    "export": "Interrupted: run it again with --since last.",
}
NEEDED: Final = {
    "ingest": ("nats_url",),
    "drain": ("nats_url",),
    "sources": ("nats_url",),
    "aggregator": ("nats_url", "postgres_dsn"),
}

LISTENS: Final = {
    "up": ("host", "stats_host"),
    "ingest": ("host",),
    "aggregator": ("stats_host",),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; the exit code."""
    arguments = vars(_parser().parse_args(argv))
    command: str = arguments.pop("command")
    try:
        settings = configuration.load(arguments)
        _check_needed(command, settings)
        check_closed(command, settings)
        names = [*os.environ, *configuration.read_dotenv(Path(".env"))]
    except SettingsError as error:
        print(error, file=sys.stderr)
        return WRONG_SETTING
    for sentence in configuration.unknown(names):
        _report(sentence, "warning", settings)
    try:
        return _call(command, settings, arguments)
    except StackError as error:
        print(error, file=sys.stderr)
    except KeyboardInterrupt:
        if command not in INTERRUPTED:
            raise
        print(INTERRUPTED[command], file=sys.stderr)
    return IN_THE_WAY


def _call(command: str, settings: Settings, given: dict[str, Any]) -> int:
    """The exit code of this command. Raises StackError."""
    if command == "top":
        from stack.top import watch  # each imported late: a wrong setting is reported sooner

        return 0 if watch(settings, given["once"]) else IN_THE_WAY
    if command == "drain":
        from stack import drain

        return drain.run(settings)
    if command == "doctor":
        from stack.doctor.examine import examine

        return examine(settings)
    if command == "sources":
        from stack.sources import show

        show(settings, given.get("give_up") or "")
        return 0
    if command in ("backup", "restore"):
        return _copy(command, settings, Path(given["file"]))
    if command == "import":
        return _import(settings, given)
    if command == "export":
        return _export(settings, given)
    return _run(command, settings)


def _run(command: str, settings: Settings) -> int:
    from stack.run import run

    log = Log(kind=settings.log_format)
    try:
        return run(command, settings, log)
    except StackError as error:
        log.close()
        _report(str(error), "critical", settings)
        return IN_THE_WAY
    except KeyboardInterrupt:
        return 0
    finally:
        log.close()


def _report(text: str, level: str, settings: Settings) -> None:
    """Writes a sentence to the standard error, as a log line only where lines are JSON."""
    if settings.log_format == logs.JSON:
        record = logs.Record(logs.now(), level, text, process=US)
        text = logs.as_json(record)
    elif level == "warning":
        text = f"warning: {text}"
    print(text, file=sys.stderr)


def _copy(command: str, settings: Settings, file: Path) -> int:
    from stack.backup.create import backup
    from stack.backup.restore import restore

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that both clean up
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # about the statement it interrupts
    print(backup(settings, file) if command == "backup" else restore(settings, file))
    return 0


def _import(settings: Settings, given: dict[str, Any]) -> int:
    from stack.imports.run import Options, run

    print(run(settings, Options(**{name: given[name] for name in Options._fields})))
    return 0


def _export(settings: Settings, given: dict[str, Any]) -> int:
    from stack.export import Wanted, export

    print(export(settings, Wanted(**{n: given[n] for n in Wanted._fields})), file=sys.stderr)
    return 0


def check_closed(command: str, settings: Settings) -> None:
    """Raises SettingsError if others could read the statistics without anyone having said so."""
    if settings.stats_token or settings.open:
        return
    for name in LISTENS.get(command, ()):
        if not is_loopback(address := getattr(settings, name)):
            raise SettingsError(
                f"CLICKMILL_{name.upper()} is {address}, where others can reach it, and there is "
                "no token: set CLICKMILL_STATS_TOKEN for those who may read, and "
                "CLICKMILL_WRITE_TOKEN for those who may write; or listen on 127.0.0.1; or set "
                "CLICKMILL_OPEN=yes to let everyone read."
            )


def _check_needed(command: str, settings: Settings) -> None:
    for field in FIELDS:
        if field.name in NEEDED.get(command, ()) and not getattr(settings, field.name):
            raise SettingsError(
                f"{field.env} is not set: `clickmill {command}` starts no server itself, "
                f"so set it to {field.allowed}."
            )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="clickmill",
        description="Counts clicks on banners and serves them as per-minute statistics.",
    )
    version = f"clickmill {build()['version']}"
    parser.add_argument("--version", action="version", version=version, help="print the version")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, help_text in COMMANDS.items():
        sub = commands.add_parser(
            name, help=help_text, description=help_text, epilog=EPILOGS.get(name),
            allow_abbrev=False,
        )  # fmt: skip
        configuration.add_flags(sub)
        if name == "drain":
            sub.add_argument("data_dir", metavar="DIR", help="the data directory")
        if name in ("backup", "restore"):
            sub.add_argument("file", metavar="FILE", help="the backup")
        if name == "import":
            _add_import(sub)
        if name == "export":
            _add_export(sub)
        if name == "top":
            sub.add_argument("--once", action="store_true", help="print one screen and exit")
        if name == "sources":
            actions = sub.add_subparsers(metavar="ACTION")
            lost = actions.add_parser("give-up", help="close the sources of a machine that is lost")
            lost.add_argument(
                "give_up", metavar="NODE|UUID", help="as listed by `clickmill sources`"
            )
    return parser


def _add_export(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("file", metavar="FILE", help="CSV, or NDJSON where it ends in .ndjson; - is stdout")
    add("--since", metavar="TIME", default="", help="begin here; `last`: where FILE ends")
    add("--until", metavar="TIME", default="", help="end here (default: where all is counted)")
    add("--step", metavar="STEP", default="1m", help="1m, 5m, 15m, 1h, 1d, 1w or 1mo (default 1m)")
    add("--tz", metavar="ZONE", default="UTC", help="time zone of days, such as Europe/Berlin")
    add("--banner", metavar="ID", dest="banners", action="append", default=[], help="only this one")
    add("--format", dest="form", choices=("csv", "ndjson"), default="", help="csv or ndjson")


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="plain or gzip; see docs/batches.md"
    )
    parser.add_argument("--url", default="", help="the ingest port (default: on this machine)")
    parser.add_argument(
        "--format", dest="kind", choices=("auto", "csv", "ndjson", "log"), default="auto",
        help="of the file (default: by its first line)",
    )  # fmt: skip
    parser.add_argument(
        "--pattern", default="", metavar="REGEX",
        help="for a log: matches the targets of clicks; its first group is the banner ID",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
