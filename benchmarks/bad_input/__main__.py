"""The table of a run over hostile arguments: `python -m benchmarks.bad_input`."""

from __future__ import annotations

import argparse
import collections
import queue
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import tqdm

from benchmarks.bad_input.calls import CALLS, Call, Case
from benchmarks.bad_input.judging import OUTCOMES, Outcome
from benchmarks.bad_input.running import Worker

Judged = tuple[Case, Outcome]


def defects(found: list[Judged]) -> Iterator[tuple[int, Case, Outcome]]:
    """Yield each kind of defect with the number of its cases and the shortest of them, most serious first."""
    groups: dict[tuple, list[Judged]] = collections.defaultdict(list)
    for case, outcome in found:
        what = (outcome.seen.split(":")[0],) if outcome.kind == "unclear" else case.changed
        groups[outcome.kind, case.name, outcome.where, what].append((case, outcome))
    order = ("wrong", "crash", "hang", "memory", "changed", "accepted", "slow", "unclear")
    for group in sorted(groups.values(), key=lambda g: (order.index(g[0][1].kind), g[0][0].name)):
        yield len(group), *min(group, key=lambda pair_: (len(pair_[0].changed), len(str(pair_[0]))))


Tallies = dict[str, collections.Counter]


def tally(
    chosen: dict[str, Call], number: int, seed: int, workers: int, minutes: float
) -> tuple[Tallies, dict[str, float], list[Judged]]:
    """Return outcomes and seconds of each function, and the defects, from as many cases or a few more.

    A function with fewer different cases than its share leaves some over: they are drawn from all, with the next seed.
    """
    tallies: Tallies = {name: collections.Counter() for name in chosen}
    seconds, found = dict.fromkeys(chosen, 0.0), []
    idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    for _ in range(workers):
        idle.put(Worker())

    def judge(name: str, cases: int) -> None:
        worker = idle.get()
        for case, outcome in worker.judge(name, cases, seed) if time.monotonic() < end else ():
            tallies[name][outcome.kind] += 1
            seconds[name] += outcome.seconds
            bar.update()
            if outcome.kind not in ("clear", "right"):
                found.append((case, outcome))
            if time.monotonic() > end:
                worker.process.kill()
                break
        idle.put(worker)

    left, end = number, time.monotonic() + 60 * minutes
    with tqdm.tqdm(total=number, unit="case") as bar, ThreadPoolExecutor(workers) as pool:
        while left > 0 and time.monotonic() < end:
            share = left / sum(c.weight for c in chosen.values())
            list(pool.map(judge, chosen, [max(1, round(share * c.weight)) for c in chosen.values()]))
            left, seed = number - sum(counter.total() for counter in tallies.values()), seed + 1
    for _ in range(workers):
        idle.get().process.kill()
    return tallies, seconds, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--only", default="", help="functions whose names contain this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so long")
    settings = parser.parse_args()
    began = time.perf_counter()
    chosen = {name: c for name, c in CALLS.items() if settings.only in name}
    tallies, seconds, found = tally(chosen, settings.cases, settings.seed, settings.workers, settings.minutes)
    print(f"\n{'public function':42} {'cases':>6} {'clear':>6} {'right':>6} {'defects':>8} {'ms/case':>8}  of which")
    for name, counter in tallies.items():
        print(_row(name, counter, seconds[name]))
    print(_row("in all", sum(tallies.values(), collections.Counter()), sum(seconds.values())))
    print(f"seed {settings.seed}, {time.perf_counter() - began:.0f} s\n")
    for number, case, outcome in defects(found):
        print(f"{outcome.kind} ({number} cases) {outcome.where}\n    {case}\n    {outcome.seen}")


def _row(name: str, counter: collections.Counter, seconds: float) -> str:
    bad = {kind: counter[kind] for kind in OUTCOMES[2:] if counter[kind]}
    parts = ", ".join(f"{number} {kind}" for kind, number in bad.items())
    mean = 1e3 * seconds / max(1, counter.total())
    return (f"{name:42} {counter.total():6} {counter['clear']:6} {counter['right']:6} {sum(bad.values()):8} {mean:8.1f}"
            f"  {parts}").rstrip()  # fmt: skip


if __name__ == "__main__":
    main()
