"""`make mutants`: small changes to the code, one at a time, that some test must notice.

    make mutants ONLY=fold,outbox SECONDS=600

Everything happens in a copy, `.mutants/`. mutmut makes the changes and runs the tests of table.py
on each; what no test notices is shown as a difference. Modules that only run in processes which the
tests start can't be traced by mutmut: for these, all tests of the table run on each change.
docs/guarantees.md lists the changes that are left as they are, with a reason each. `known` are
those that once passed every test: for these the exit code is 1 where one does so again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.mutants.known import KNOWN, Known
from tests.mutants.table import CODE, NOT_CHANGED, ROOT, SLOW, STARTED, TESTS, code_file, test_file

if TYPE_CHECKING:
    from mutmut.mutation.data import SourceFileMutationData

WORK: Final = ROOT / ".mutants"
LEFT_OUT: Final = (".*", "__pycache__", "node_modules", "data", "build", "*.egg-info", "reports")
SECONDS: Final = 900
STOP_S: Final = 20
TEST_S: Final = 120
STARTED_S: Final = 300
QUICK: Final = [name for name in TESTS if name not in SLOW]
UNREACHED: Final = "no tests"
TIMED_OUT: Final = 36
"""mutmut's own number for it."""
_GENERATE: Final = """
from mutmut.__main__ import (
    copy_also_copy_files, copy_src_dir, create_mutants, setup_source_paths, set_mutant_under_test,
)
if __name__ == "__main__":
    set_mutant_under_test("mutant_generation")
    copy_src_dir()
    copy_also_copy_files()
    setup_source_paths()
    create_mutants(1)
"""
DEAD: Final = frozenset({"killed", "timeout", "segfault", "suspicious"})


def main() -> int:
    """All quick modules and the known changes, or some; 1 where a known one passes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join([*QUICK, "known"]), help="with commas between")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="for the modules in all")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    chosen = given.only.split(",")
    if strangers := set(chosen) - {*TESTS, "known"}:
        parser.error(f"no such module: {', '.join(strangers)}; there are {', '.join(TESTS)}, known")
    missed = _try_known() if "known" in chosen else 0
    for modules, mutate in (
        ([name for name in chosen if name in TESTS and name not in STARTED], _mutate),
        ([name for name in chosen if name in STARTED], _mutate_started),
    ):
        if modules:
            _copy()
            _configure(modules)
            mutate(given.seconds, given.jobs)
            _report()
    return int(missed > 0)


def _copy() -> None:
    shutil.rmtree(WORK, ignore_errors=True)
    shutil.copytree(ROOT, WORK, ignore=shutil.ignore_patterns(*LEFT_OUT))


# --- known changes ------------------------------------------------------------------------------


def _try_known() -> int:
    """How many of the known changes pass their test; without them all tests pass."""
    _copy()
    if _pytest([_path_of(known.test) for known in KNOWN]):
        sys.exit("the tests of the known changes fail without any change: mend that first")
    return sum(_passes(known) for known in KNOWN)


def _path_of(test: str) -> str:
    """`test_a` or `test_a::test_b` as pytest takes it."""
    file, _, name = test.partition("::")
    path = str(test_file(WORK, f"{file.removesuffix('.py')}.py").relative_to(WORK))
    return f"{path}::{name}" if name else path


def _pytest(tests: Sequence[str]) -> int:
    code = _run([sys.executable, "-m", "pytest", "-q", "-x", "-n0", *tests], check=False)
    if code not in (0, 1):
        sys.exit(f"pytest could not run {', '.join(tests)}")
    return code


def _passes(known: Known) -> bool:
    """Whether the test passes in spite of the change."""
    _copy()
    path = code_file(WORK, known.file)
    text = path.read_text()
    assert text.count(known.old) == 1, f"{known.name}: the line is not there once, in {path}"
    path.write_text(text.replace(known.old, known.new))
    if path.suffix == ".pyx":
        _run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], check=True)
    code = _pytest([_path_of(known.test)])
    print(f"{'PASSES' if code == 0 else 'fails '}  {known.name}", flush=True)
    return code == 0


def _run(argv: Sequence[str], check: bool) -> int:
    # The tests start workers of their own: these must be of the copy, too.
    env = os.environ | {"PYTHONPATH": str(WORK)}
    done = subprocess.run(argv, cwd=WORK, env=env, capture_output=True, text=True, check=False)
    if check and done.returncode:
        sys.exit(done.stdout + done.stderr)
    return done.returncode


# --- mutmut -------------------------------------------------------------------------------------


def _configure(modules: Sequence[str]) -> None:
    files = [str(code_file(WORK, f"{name}.py").relative_to(WORK)) for name in modules]
    tests = [_path_of(test) for test in dict.fromkeys(t for name in modules for t in TESTS[name])]
    beside = [path.name for path in WORK.iterdir() if path.name not in ("tests", "pyproject.toml")]
    lines = [
        "", "[tool.mutmut]",
        f"source_paths = {json.dumps(list(CODE))}",
        f"only_mutate = {json.dumps(files)}",
        f"also_copy = {json.dumps(beside)}",
        f"pytest_add_cli_args_test_selection = {json.dumps(tests)}",
        'pytest_add_cli_args = ["-p", "no:cacheprovider", "-n", "0", "-x"]',
        f"do_not_mutate_patterns = {json.dumps(list(NOT_CHANGED))}",
        f"timeout_constant = {TEST_S}.0",
        "timeout_multiplier = 1.0",
        "use_git_change_detection = false",
    ]  # fmt: skip
    with (WORK / "pyproject.toml").open("a") as file:
        file.write("\n".join(lines) + "\n")


def _mutate(seconds: int, jobs: int) -> None:
    argv = [str(Path(sys.executable).with_name("mutmut")), "run", "--max-children", str(jobs)]
    with (WORK / "mutmut.log").open("wb") as log:
        process = subprocess.Popen(
            argv, cwd=WORK, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(seconds)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            code = _stop(process)
    if code > 0:
        sys.exit(f"mutmut could not run (exit code {code}): see {WORK / 'mutmut.log'}")


def _mutate_started(seconds: int, jobs: int) -> None:
    """Runs all tests on each change: the processes that they start inherit its name."""
    _run([sys.executable, "-c", _GENERATE], check=True)
    end = time.monotonic() + seconds
    if _tested(""):
        sys.exit("the tests fail without any change: mend that first")
    with ThreadPoolExecutor(jobs) as pool:
        for data in _of_modules():
            names = list(data.exit_code_by_key)
            codes = pool.map(lambda name: _tested(name) if time.monotonic() < end else None, names)
            for name, code in zip(names, codes, strict=True):
                data.exit_code_by_key[name] = code
                print(f"{_function(name)}: {code}", flush=True)
            data.save()


def _tested(name: str) -> int:
    """pytest's exit code with this change (none if empty), or that of a time-out."""
    place = WORK / "mutants"
    settings = tomllib.loads((place / "pyproject.toml").read_text())["tool"]["mutmut"]
    tests = settings["pytest_add_cli_args_test_selection"]
    argv = [sys.executable, "-m", "pytest", "-q", *settings["pytest_add_cli_args"], *tests]
    env = os.environ | {"PYTHONPATH": str(place), "MUTANT_UNDER_TEST": name}
    process = subprocess.Popen(
        argv, cwd=place, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        return process.wait(STARTED_S)
    except subprocess.TimeoutExpired:
        _stop(process)
        return TIMED_OUT


def _stop(process: subprocess.Popen[bytes]) -> int:
    """The time is over: what was tried until now is in its files."""
    for number in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
    return 0


def _report() -> None:
    """Every change that no test noticed, and how many there were of each kind."""
    counts: Counter[str] = Counter()
    unreached: Counter[str] = Counter()
    for name, state, difference in _results():
        counts[state] += 1
        if state == UNREACHED:
            unreached[_function(name)] += 1
        elif state not in DEAD and state != "not checked":
            print(f"{_function(name)}: {state}\n{difference}\n")
    for function, n in unreached.items():
        print(f"{function}: no quick test reaches it ({n} changes)")
    print(", ".join(f"{n} {state}" for state, n in counts.most_common()) or "nothing to change")


def _function(name: str) -> str:
    """The function's own name, of mutmut's name of a change: `a.xǁClassǁmethod__mutmut_7`."""
    module, _, function = name.partition("__mutmut_")[0].rpartition(".")
    return f"{module}.{function.removeprefix('xǁ').removeprefix('x_').replace('ǁ', '.')}"


def _results() -> Iterator[tuple[str, str, str]]:
    for data in _of_modules():
        from mutmut.mutation.diff_apply import get_diff_for_mutant
        from mutmut.stats import status_by_exit_code

        for name, code in data.exit_code_by_key.items():
            state = status_by_exit_code[code]
            shown = "" if state in DEAD else get_diff_for_mutant(name, path=data.path)
            yield name, state, "\n".join(_changed(shown))


def _of_modules() -> Iterator[SourceFileMutationData]:
    """What is known of the changes, by file."""
    os.chdir(WORK)  # mutmut reads its settings where it is imported
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.utils.file_utils import walk_mutatable_files

    for path in walk_mutatable_files():
        data = SourceFileMutationData(path=path)
        data.load()
        yield data


def _changed(difference: str) -> Iterator[str]:
    for line in difference.splitlines():
        if line.startswith(("+", "-")) and not line.startswith(("+++", "---")):
            yield f"    {line}"


if __name__ == "__main__":
    sys.exit(main())
