"""Programs of the operating system that tests start as clients, or as proxies in front."""

from __future__ import annotations

import os
import shutil

import pytest

PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def program(name: str) -> str:
    """Its path. Where it is missing the test is skipped by its name, but never where CI=true."""
    found = shutil.which(name, path=PATH)
    if found is None:
        missing = f"{name} is missing: type `scripts/os-packages test`"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found
