"""`make fuzz`: the targets under Atheris, a coverage-guided fuzzer, each in a process of its own.

    make fuzz SECONDS=60 ONLY=batch_json

Its corpus is kept in `.fuzz/<target>`, so that the next run goes on from there; what breaks a
target is written to `.fuzz/<target>-crash-…` and shown. Put it into SEEDS of targets.py.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORK = ROOT / ".fuzz"
SECONDS = 60
MAX_BYTES = 4096
GRACE_S = 120


def fuzz(name: str, seconds: int) -> None:
    """Fuzzes one target in this process, which Atheris then ends."""
    import atheris

    with atheris.instrument_imports(
        include=["aggregator", "clickmill", "ingest", "tests.fuzz", "json", "urllib"]
    ):
        from tests.fuzz.targets import SEEDS, TARGETS

    corpus = WORK / name
    corpus.mkdir(parents=True, exist_ok=True)
    for n, seed in enumerate(SEEDS[name]):
        (corpus / f"seed-{n}").write_bytes(seed)
    flags = [
        f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", "-timeout=10", "-rss_limit_mb=2048",
        f"-artifact_prefix={WORK / name}-", "-print_final_stats=1", "-verbosity=0", "-seed=1",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *flags, str(corpus)], TARGETS[name])
    atheris.Fuzz()


def main() -> int:
    """All targets, or one; 1 where any was broken."""
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="for each target")
    parser.add_argument("--only", choices=sorted(TARGETS))
    parser.add_argument("--inside", choices=sorted(TARGETS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        fuzz(given.inside, given.seconds)
        return 0
    broken = 0
    for name in [given.only] if given.only else TARGETS:
        broken += run_apart(name, given.seconds)
    print(f"{broken} failed, {(1 if given.only else len(TARGETS)) - broken} passed")
    return int(broken > 0)


def run_apart(name: str, seconds: int) -> bool:
    """Whether the target was broken within so many seconds."""
    words = [sys.executable, "-m", "tests.fuzz.run", "--inside", name, "--seconds", str(seconds)]
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, timeout=seconds + GRACE_S, check=False
    )
    lines = (done.stdout + done.stderr).splitlines()
    runs = next((line.split()[-1] for line in lines if "number_of_executed_units" in line), "?")
    print(f"{name:14} {runs:>9} inputs in {seconds} s: {'BROKEN' if done.returncode else 'held'}")
    if done.returncode:
        print("\n".join(lines[-40:]))
    return bool(done.returncode)


if __name__ == "__main__":
    sys.exit(main())
