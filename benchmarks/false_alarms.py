"""How often the sanity fit blames a tree that is right: `python benchmarks/false_alarms.py [RUNS]`.

reference/ is trained over and over, 200 times if not told otherwise, two at a time: each seed with 1 and 2
threads, and with 0 and 2 workers that load rows. Printed are each run, and how many of them the sanity fit
did not pass; exits 1 if there are any.
"""

import itertools
import os
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from sanity_fits import ROOT, Order, run_fit

from bitpatch.verify.driving.short_fit import entropy_floor, judge
from bitpatch.verify.running.evidence import Verdict
from bitpatch.verify.running.runner import SAMPLE

RUNS = 200
TREE = ROOT / "reference"
THREADS, WORKERS = (1, 2), (0, 2)
FLOOR = entropy_floor(SAMPLE.read_bytes())


def orders(count: int) -> Iterator[Order]:
    """The runs: seed after seed, each with every number of threads and of workers."""
    settings = itertools.product(range(count), THREADS, WORKERS)
    for seed, threads, workers in itertools.islice(settings, count):
        yield Order(TREE, seed, threads=threads, options={"num_workers": workers})


def find_alarm(order: Order) -> tuple[str, float]:
    """What the sanity fit says against a run, empty if it passes, and the run's final loss."""
    try:
        seen = run_fit(order)
    except RuntimeError as error:
        return str(error), float("nan")
    verdict, detail = judge(seen.fit, FLOOR)
    return "" if verdict is Verdict.PASS else f"{verdict}: {detail}", seen.last


def main() -> int:
    """Run all, and count; return the exit status."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin would starve those that work
    began = time.monotonic()
    count = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    planned, alarms, losses = list(orders(count)), 0, []
    with ThreadPoolExecutor(2) as threads:
        for number, (order, (alarm, loss)) in enumerate(
            zip(planned, threads.map(find_alarm, planned), strict=True), start=1
        ):
            alarms += bool(alarm)
            losses.append(loss)
            workers = order.options["num_workers"]
            setting = f"seed {order.seed}, threads {order.threads}, workers {workers}"
            print(f"{number}/{count} {setting}: loss {loss:.4f} {alarm or 'passes'}", flush=True)
    spread = f"final loss {min(losses):.4f} to {max(losses):.4f}, median {statistics.median(losses):.4f}"
    print(f"{alarms} false alarms in {count} runs; {spread}; {time.monotonic() - began:.0f} s, {os.cpu_count()} cores")
    return alarms > 0


if __name__ == "__main__":
    sys.exit(main())
