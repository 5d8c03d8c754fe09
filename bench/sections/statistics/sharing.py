"""What one greedy client costs the others: `python -m bench.sections.statistics.sharing`.

A client at an address of its own asks for days of half an hour's shift (Asia/Kolkata) on many
connections of the ingest port, without a pause. Another asks the statistics port for the top
banners of a month, one question after the other. In turn: without the first, and beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import multiprocessing
import statistics
import sys
import time
from typing import Final

from bench.harness import idle
from bench.harness.servers import end_on_sigterm
from bench.harness.system import Clickmill
from bench.report.tables import markdown
from bench.sections.statistics.bench import SETTINGS, Timing
from bench.sections.statistics.data import DAY_S, fill

BANNERS: Final = 50
DENSE: Final = 30
GREEDY: Final = "127.0.0.2"
SETTLE_S: Final = 1.0
DRAIN_S: Final = 3.0
"""Until what the greedy client has still asked is answered."""
HEAD: Final = ("round", "`/top` alone, ms", "beside it, ms", "ratio of medians", "ratio of p95")


async def _ask_forever(port: int, target: str, answers: list[int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(GREEDY, 0))
    request = f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    while True:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        answers[0 if b" 200 " in head[:16] else 1] += 1


async def _greedy(port: int, target: str, connections: int, seconds: float) -> list[int]:
    answers = [0, 0]
    tasks = [asyncio.create_task(_ask_forever(port, target, answers)) for _ in range(connections)]
    done, _ = await asyncio.wait(tasks, timeout=seconds)
    for task in tasks:
        task.cancel()
    if done:
        raise RuntimeError("a connection of the greedy client ended") from done.pop().exception()
    return answers


def greedy(port: int, target: str, connections: int, seconds: float) -> None:
    """The greedy client, as a process: prints nothing, ends with 1 where it is not answered."""
    answers = asyncio.run(_greedy(port, target, connections, seconds))
    if not answers[0]:
        sys.exit("the greedy client had no answer of 200")


def ask(port: int, seconds: float) -> Timing:
    """Times of one question after the other, for so long."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    took: list[float] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        now = int(time.time())
        began = time.perf_counter()
        connection.request("GET", f"/top?tsFrom={now - 30 * DAY_S}&tsTo={now}&limit=20")
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"/top was answered {answer.status}")
        took.append((time.perf_counter() - began) * 1_000)
    connection.close()
    return Timing(statistics.median(took), statistics.quantiles(took, n=20)[-1])


def beside(system: Clickmill, options: argparse.Namespace) -> Timing:
    """The same, beside the greedy client. Raises RuntimeError where that one was not served."""
    now = int(time.time())
    target = f"/stats/17?tsFrom={now - options.days * DAY_S}&tsTo={now}&step=1d&tz=Asia/Kolkata"
    length = SETTLE_S + options.seconds + SETTLE_S
    process = multiprocessing.get_context("spawn").Process(
        target=greedy, args=(system.port, target, options.connections, length)
    )
    process.start()
    time.sleep(SETTLE_S)
    took = ask(system.stats_port, options.seconds)
    process.join()
    time.sleep(DRAIN_S)
    if process.exitcode:
        raise RuntimeError(f"the greedy client ended with {process.exitcode}")
    return took


def row_of(number: int, alone: Timing, shared: Timing) -> list[str]:
    """Its line of the table; times are median / 95th percentile."""
    return [
        str(number),
        f"{alone.p50:.1f} / {alone.p95:.1f}",
        f"{shared.p50:.1f} / {shared.p95:.1f}",
        f"{shared.p50 / alone.p50:.2f}",
        f"{shared.p95 / alone.p95:.2f}",
    ]


def main() -> int:
    """0: measured; 1: the machine is busy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=6, help="length of each half of a round")
    parser.add_argument("--days", type=int, default=200, help="what the greedy client asks for")
    parser.add_argument("--connections", type=int, default=100)
    idle.add_options(parser)
    options = parser.parse_args()
    end_on_sigterm()
    try:
        idle.gate(options, print)
    except idle.BusyMachineError as error:
        print(f"sharing: {error}", file=sys.stderr)
        return 1
    rows = []
    with Clickmill(SETTINGS, worker_cores=None) as system:
        fill(system.dsn(), BANNERS, options.days, DENSE)
        ask(system.stats_port, 1)  # the first questions plan their statements
        for number in range(1, options.rounds + 1):
            alone = ask(system.stats_port, options.seconds)
            shared = beside(system, options)
            rows.append(row_of(number, alone, shared))
    print("\n".join(markdown(HEAD, rows)))
    for column, name in ((3, "medians"), (4, "p95")):
        print(f"ratio of {name}: {statistics.median(float(row[column]) for row in rows):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
