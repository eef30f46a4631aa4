"""What mutated slides do to a process that has no guard but the check of headers.

    python benchmarks/mutations.py [--inputs 20000] [--first 0] [--write]

Healthy slides of 256 x 256 pixels and two levels get 1 to 4 damages each: tags, tables of tiles,
any byte, or their end (`tests/slides/mutations.py`). Each is opened, every level read, and its
associated images and colour profile asked for, once with the default backend and once with
OpenSlide alone. In the product a child process opens a slide before that; here it is left out, so
what would kill the process is seen as its death. It may take 4 GiB of address space, and 10 s an
input. Linux only.
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

import openslide

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "slides")]

from mutation_series import Tally, run_series  # noqa: E402
from mutations import MAKERS  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "mutations.md"
SLOW_S = 2.0
HEAD = (
    "| slide | opened by | inputs | refused | opened | failed reads | deaths | hangs"
    " | unexpected | slowest, s | most memory, MB |\n"
    "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def row(name: str, backend: str | None, tally: Tally) -> str:
    """One line of the table."""
    by = "OpenSlide" if backend else f"default ({tally.backends['tiff']} direct)"
    failed = f"{tally.read_errors} of {tally.boxes}"
    found = f"{len(tally.deaths)} | {len(tally.hangs)} | {len(tally.unexpected)}"
    worst = f"{tally.worst_s:.2f} | {tally.worst_mb:.0f}"
    counts = f"{tally.inputs} | {tally.refused} | {tally.opened} | {failed}"
    return f"| {name} | {by} | {counts} | {found} | {worst} |"


def summary(tallies: list[Tally]) -> str:
    """Return the sums, and the upper bound of the rate of deaths by the rule of three."""
    inputs = sum(t.inputs for t in tallies)
    deaths, hangs, unexpected = (
        sum(len(getattr(t, what)) for t in tallies) for what in ("deaths", "hangs", "unexpected")
    )
    slow = max(t.worst_s for t in tallies)
    bound = "" if deaths else f" (95 % bound of the rate: {3 / inputs:.4%})"
    return (
        f"Together {inputs} inputs: {deaths} deaths{bound}, {hangs} hangs, {unexpected} unexpected"
        f" exceptions; the slowest took {slow:.2f} s (wanted: below {SLOW_S:g} s);"
        f" {max(t.lost_files for t in tallies)} file descriptors lost."
    )


def most_common(tallies: list[Tally], number: int = 12) -> str:
    """Return the commonest reasons of refusal, numbers written as N."""
    total = sum((t.messages for t in tallies), start=type(tallies[0].messages)())
    lines = (f"| {count} | {text} |" for text, count in total.most_common(number))
    return "\n".join(["| refused | because |", "|---:|---|", *lines])


def main() -> None:
    """Run the series and print, or write, the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=20_000, help="for each way to open")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--write", action="store_true", help=f"to {RESULTS.name}")
    asked = parser.parse_args()
    each = -(-asked.inputs // len(MAKERS))
    tallies, lines = [], [HEAD]
    for name in MAKERS:
        for backend in (None, "openslide"):
            tallies.append(run_series(name, asked.first, each, backend))
            lines.append(row(name, backend, tallies[-1]))
            print(lines[-1], flush=True)
            found = (*tallies[-1].deaths, *tallies[-1].hangs, *tallies[-1].unexpected)
            for text in found[:3]:
                print(text, file=sys.stderr)
    machine = f"Python {platform.python_version()}, OpenSlide {openslide.__library_version__}"
    seeds = f"seeds {asked.first} to {asked.first + each - 1} of each slide"
    table = "\n".join(lines)
    text = (
        f"# Mutated slides\n\n`python benchmarks/mutations.py --inputs {asked.inputs}`; {seeds};"
        f" {machine}.\n\n{summary(tallies)}\n\n{table}\n\n{most_common(tallies)}\n"
    )
    print(text)
    if asked.write:
        RESULTS.write_text(text)


if __name__ == "__main__":
    main()
