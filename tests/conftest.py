"""Fixtures, one file for each concern: see tests/fix_*.py."""

from __future__ import annotations

import signal

import hypothesis

pytest_plugins = [
    "tests.support.order",
    "tests.support.fix_nats",
    "tests.support.fix_postgres",
    "tests.support.fix_system",
    "tests.support.fix_api",
    "tests.support.fix_worker",
    "tests.support.fix_helm",
]


def pytest_configure() -> None:
    """A run in the background ignores Ctrl-C, and would hand that on to all that it starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # A busy machine is no defect of the code: no test of a property has a time limit of its own.
    hypothesis.settings.register_profile("clickmill", deadline=None)
    hypothesis.settings.load_profile("clickmill")
