"""Run campaigns and print the table of outcomes: `python -m tests.campaigns [KIND ...] [--share 0.1]`."""

from __future__ import annotations

import argparse
import collections
import sys
import tempfile
import time
from pathlib import Path

from tests.campaigns.runner import KINDS, load_kind, run
from tests.campaigns.trials import Finding, Outcome


def main() -> int:
    """Return 0 if there was no defect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []], help="default: all")
    parser.add_argument("--share", type=float, default=1.0, help="share of the trials, spread evenly")
    parser.add_argument("--only", type=int, help="this trial alone, with its whole finding")
    arguments = parser.parse_args()
    table: dict[str, collections.Counter[Outcome]] = {}
    defects: list[str] = []
    start = time.perf_counter()
    for name in arguments.kinds or KINDS:
        table[name] = collections.Counter()
        numbers = [arguments.only] if arguments.only is not None else chosen(load_kind(name).count, arguments.share)
        with tempfile.TemporaryDirectory() as folder:
            for number, finding in run(name, numbers, Path(folder)):
                table[name][finding.outcome] += 1
                if not finding.outcome.good or arguments.only is not None:
                    defects.append(describe(name, number, finding))
                    print(defects[-1], file=sys.stderr, flush=True)
    print_table(table)
    print(f"{time.perf_counter() - start:.0f} s; {len(defects)} defects")
    return bool(defects)


def chosen(count: int, share: float) -> list[int]:
    """Return the numbers of a share of the trials, spread evenly so that every kind of damage is among them."""
    step = max(1, round(1 / share))
    return list(range(0, count, step if step % 2 else step + 1))  # odd steps meet all damages of an even number


def describe(kind: str, number: int, finding: Finding) -> str:
    """Return a finding in one line, with the command line that repeats it."""
    return f"{kind} --only {number}: {finding.outcome}: {finding.label}: {finding.detail}"


def print_table(table: dict[str, collections.Counter[Outcome]]) -> None:
    """Print counts by kind and outcome."""
    print(f"{'kind':12}{'trials':>8}" + "".join(f"{outcome:>14}" for outcome in Outcome))
    for name, counts in table.items():
        print(f"{name:12}{counts.total():8}" + "".join(f"{counts[outcome]:14}" for outcome in Outcome))


if __name__ == "__main__":
    sys.exit(main())
