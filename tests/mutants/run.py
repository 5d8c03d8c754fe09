"""`make mutants`: small changes to the code, one at a time, that some test must notice.

    make mutants ONLY=fold,outbox SECONDS=600

Everything happens in a copy, `.mutants/`. mutmut makes the changes and runs the tests of table.py
on each; what no test notices is shown as a difference. docs/guarantees.md lists those that are
left as they are, with a reason each. `known` are the changes that once passed every test: for
these the exit code is 1 where one does so again.
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
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.mutants.known import KNOWN, Known
from tests.mutants.table import CODE, NOT_CHANGED, ROOT, SLOW, TESTS, code_file, test_file

WORK: Final = ROOT / ".mutants"
LEFT_OUT: Final = (".*", "__pycache__", "node_modules", "data", "build", "*.egg-info", "reports")
SECONDS: Final = 900
STOP_S: Final = 20
TEST_S: Final = 120
QUICK: Final = [name for name in TESTS if name not in SLOW]
UNREACHED: Final = "no tests"
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
    if modules := [name for name in chosen if name in TESTS]:
        _copy()
        _configure(modules)
        _mutate(given.seconds, given.jobs)
        _report()
    return int(missed > 0)


def _copy() -> None:
    shutil.rmtree(WORK, ignore_errors=True)
    shutil.copytree(ROOT, WORK, ignore=shutil.ignore_patterns(*LEFT_OUT))


# --- known changes ------------------------------------------------------------------------------


def _try_known() -> int:
    """How many of the known changes pass their test; without them all tests pass."""
    _copy()
    if _pytest([_test_of(known) for known in KNOWN]):
        sys.exit("the tests of the known changes fail without any change: mend that first")
    return sum(_passes(known) for known in KNOWN)


def _test_of(known: Known) -> str:
    file, _, name = known.test.partition("::")
    return f"{test_file(WORK, file).relative_to(WORK)}::{name}"


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
    code = _pytest([_test_of(known)])
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
    names = sorted({f"{test}.py" for module in modules for test in TESTS[module]})
    tests = [str(test_file(WORK, name).relative_to(WORK)) for name in names]
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
    os.chdir(WORK)  # mutmut reads its settings where it is imported
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.mutation.diff_apply import get_diff_for_mutant
    from mutmut.stats import status_by_exit_code
    from mutmut.utils.file_utils import walk_mutatable_files

    for path in walk_mutatable_files():
        data = SourceFileMutationData(path=path)
        data.load()
        for name, code in data.exit_code_by_key.items():
            state = status_by_exit_code[code]
            shown = "" if state in DEAD else get_diff_for_mutant(name, path=path)
            yield name, state, "\n".join(_changed(shown))


def _changed(difference: str) -> Iterator[str]:
    for line in difference.splitlines():
        if line.startswith(("+", "-")) and not line.startswith(("+++", "---")):
            yield f"    {line}"


if __name__ == "__main__":
    sys.exit(main())
