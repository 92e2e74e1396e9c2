"""10,000 damaged tile programs: every one is rejected by the checker or runs to its end.

    python benchmarks/fuzz_programs.py [--mutants 10000] [--seed 0]

Prints how many of each, and the slowest; ends in an error on the first program that the checker accepts and the
interpreter refuses.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from program_mutations import mutant, verdict, victims


def main() -> None:
    """Run the mutants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    found = victims(60)
    seen: Counter[str] = Counter()
    slowest = 0.0
    begin = time.process_time()
    for number in range(arguments.mutants):
        victim = found[int(rng.integers(0, len(found)))]
        step = mutant(rng, victim)
        started = time.process_time()
        seen[verdict(victim, step, (number, number + 1))] += 1
        slowest = max(slowest, time.process_time() - started)
    spent = time.process_time() - begin
    parts = ", ".join(f"{count} {name}" for name, count in sorted(seen.items()))
    sys.stdout.write(f"{arguments.mutants} mutants of {len(found)} programs: {parts}\n")
    sys.stdout.write(f"{spent:.0f} s CPU, slowest mutant {slowest:.1f} s\n")


if __name__ == "__main__":
    main()
