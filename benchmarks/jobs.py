"""How much sooner do candidates end that are trained side by side? A search's time by its number of jobs.

    python benchmarks/jobs.py DIR OUT [--candidates 6] [--images 14000] [--repeats 1]

searches by the recipe `cifar10-study` on the CIFAR-10 in DIR, candidates only, one epoch of --images less the 4,000
that compare them (half of the images, where that is less): one at a time with one thread, one at a time with a thread a
core, and as many at once as there are cores. Prints, and writes into OUT/jobs.json, the seconds of the three commands
from start to end, the cells that they found, and two ratios. `of_best` is the time side by side over that of the faster
of the two others. `machine` is what the cores allow where all is multiplication: the time of every core doing one, over
that of one core doing all in turn. It is 1 / cores where cores share nothing and more where they are two threads of one
core; what trainings lose beyond it, they lose to shared caches and memory, or to the processes. About ten minutes for
every repeat.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench import describe_machine

MULTIPLY = """
import time, torch
torch.set_num_threads(1)
left, right = torch.rand(2080, 96), torch.rand(96, 384)
start = time.perf_counter()
for _ in range(5000):
    left @ right
print(time.perf_counter() - start)
"""
"""What a layer of these candidates does most, for a few seconds."""


def search(jobs: int, threads: int, folder: Path, args: argparse.Namespace) -> tuple[float, list[Any]]:
    """Run the command; return its seconds, and the operations of the cell that it found."""
    shutil.rmtree(folder, ignore_errors=True)
    options = {"config": "cifar10-study", "method": "finals", "data.path": args.dir, "data.limit": args.images}
    options |= {"search.finals.cells": args.candidates, "search.finals.rungs": 1, "search.finals.shipped": "false"}
    options |= {"jobs": jobs, "run": folder}
    command = [sys.executable, "-m", "dasvit", "search"]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    seconds = time.perf_counter() - start
    cell = json.loads((folder / "genotype.json").read_text(encoding="utf-8"))
    return seconds, [edge["op"] for edge in cell["edges"]]


def multiplications(at_once: int) -> float:
    """Return the mean seconds of that many processes that multiply at once."""
    command = [sys.executable, "-c", MULTIPLY]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(at_once)]
    return statistics.fmean(float(process.communicate()[0]) for process in processes)


def main() -> None:
    """Time the searches in turn, and the machine's cores."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dir", type=Path, help="folder with the parquet files of CIFAR-10")
    parser.add_argument("out", type=Path, help="where run folders and jobs.json go")
    parser.add_argument("--candidates", type=int, default=6)
    parser.add_argument("--images", type=int, default=14000, help="of the data set; 4,000 of them compare")
    parser.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    arms = {"one_thread": (1, 1), "all_threads": (1, cores), "side_by_side": (cores, 1)}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    cells: dict[str, list[Any]] = {}
    alone, together = [], []
    for _ in range(args.repeats):
        for name, (jobs, threads) in arms.items():
            spent, cells[name] = search(jobs, threads, args.out / name, args)
            seconds[name].append(spent)
        alone.append(multiplications(1))
        together.append(multiplications(cores))
    times = {name: round(statistics.median(values), 1) for name, values in seconds.items()}
    found: dict[str, Any] = {"cores": cores, "seconds": times, "cells": cells}
    found["of_best"] = round(times["side_by_side"] / min(times["one_thread"], times["all_threads"]), 3)
    found["machine"] = round(statistics.median(together) / (cores * statistics.median(alone)), 3)
    found |= {"candidates": args.candidates, "machine_is": describe_machine()}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "jobs.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
