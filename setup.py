"""Compiles the Cython modules of ingest, and sees that the live page's libraries are there.

Everything else stands in pyproject.toml.

Not the stable ABI: it makes a call of a small function about five times slower. Not
-march=native either: a wheel or an image may run on another machine than the one that built it.

CLICKMILL_LINETRACE=1 builds with line tracing, for coverage of the .pyx files.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

LINETRACE = os.environ.get("CLICKMILL_LINETRACE") == "1"
C_FLAGS = ["-O3", "-Wall", "-Wno-unused-function", "-Wno-unreachable-code"]
PAGE = next(Path("aggregator").glob("**/page/package.json")).parent
# Made last, when all libraries are there.
PAGE_BUILT = PAGE / "lib" / ".built"


def extension(source: Path) -> Extension:
    macros = [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")] if LINETRACE else []
    name = ".".join(source.with_suffix("").parts)
    return Extension(name, [str(source)], extra_compile_args=C_FLAGS, define_macros=macros)


def need_page() -> None:
    """The page's libraries, from the npm registry where they are missing; or one sentence."""
    if PAGE_BUILT.exists():
        return
    # Without npm scripts/page would install one: not into an environment that isn't ours.
    npm = shutil.which("npm") and shutil.which("node")
    if not npm or subprocess.run(["scripts/page", sys.executable], check=False).returncode:
        sys.exit(
            f"{PAGE}/lib lacks the live page's libraries, and npm "
            f"{'could not get them' if npm else 'is not here to get them'}: "
            "type `make page`, then build again."
        )


class BuildWithPage(build_py):
    def run(self) -> None:
        if not self.editable_mode:  # there `make page` comes by itself
            need_page()
        super().run()


class SdistWithPage(sdist):
    def run(self) -> None:
        need_page()
        super().run()


setup(
    ext_modules=[extension(source) for source in sorted(Path("ingest").glob("*.pyx"))],
    cmdclass={"build_py": BuildWithPage, "sdist": SdistWithPage},
    options={
        "build_ext": {
            "cython_directives": {"language_level": 3, "linetrace": LINETRACE},
            "force": LINETRACE,
        }
    },
)
