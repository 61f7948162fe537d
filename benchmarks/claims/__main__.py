"""Claim, test, margin, verdict, from the published records.

python -m benchmarks.claims              # for people
python -m benchmarks.claims --markdown   # as in docs/results/tests.md
"""

from __future__ import annotations

import argparse

from benchmarks.claims import table
from benchmarks.shell import guarded


def main() -> None:
    """Prints them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markdown", action="store_true")
    if parser.parse_args().markdown:
        print("\n".join(map(table.markdown, table.KINDS)))
    else:
        print(table.text())


if __name__ == "__main__":
    guarded(main, "benchmarks.claims")
