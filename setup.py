"""Compiles the Cython modules of ingest; everything else stands in pyproject.toml.

Not the stable ABI: it makes a call of a small function about five times slower. Not
-march=native either: a wheel or an image may run on another machine than the one that built it.

CLICKMILL_LINETRACE=1 builds with line tracing, for coverage of the .pyx files.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

LINETRACE = os.environ.get("CLICKMILL_LINETRACE") == "1"
C_FLAGS = ["-O3", "-Wall", "-Wno-unused-function", "-Wno-unreachable-code"]


def extension(source: Path) -> Extension:
    macros = [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")] if LINETRACE else []
    name = ".".join(source.with_suffix("").parts)
    return Extension(name, [str(source)], extra_compile_args=C_FLAGS, define_macros=macros)


setup(
    ext_modules=cythonize(
        [extension(source) for source in sorted(Path("ingest").glob("*.pyx"))],
        compiler_directives={"language_level": 3, "linetrace": LINETRACE},
        force=LINETRACE,
    )
)
