"""`python -m aggregator`: one aggregator, configured by CLICKMILL_* and `.env`."""

from __future__ import annotations

import logging
import os
import sys

import uvloop

from aggregator.service import Service
from clickmill import configuration, heartbeat, logs, openfiles
from clickmill.settings import Settings


async def serve(settings: Settings) -> None:
    """Run until a signal ends it."""
    await Service(settings).run()


def main() -> None:
    """Entry of `python -m aggregator`."""
    heartbeat.attach()
    try:
        settings = configuration.load()
    except configuration.SettingsError as error:
        sys.exit(f"{error}")
    logs.configure(settings.log_level, settings.log_format)
    openfiles.allow_most()
    code = 0
    try:
        uvloop.run(serve(settings))
    except Exception:  # the supervisor starts another; say why this one ends
        logging.getLogger("clickmill.aggregator").critical("the aggregator broke", exc_info=True)
        code = 1
    logging.shutdown()
    # At once: Granian's threads may still hold connections open.
    os._exit(code)


if __name__ == "__main__":
    main()
