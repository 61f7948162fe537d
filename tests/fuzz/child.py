"""Feeds COUNT malformed inputs to all readers and flags; prints what came of them.

python child.py COUNT SEED FOLDER [broken]

Ends with 1 and the traceback of each input that costs more than one clear error or 2 GB
beyond what the libraries took; ended by a signal after 10 s of processor time for one.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from malformed import NonsenseError, arguments, readers, words

from zoo.errors import RobrepError

SECONDS = 10.0
EXTRA = 2 << 30


def main() -> None:
    count, seed, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    os.environ["ROBREP_OFFLINE"] = "1"
    os.chdir(folder)
    files, flags = readers(folder), arguments()
    if "broken" in sys.argv:
        flags, files = {"broken": lambda text: text + 1}, {}  # type: ignore[operator]
    kinds = [*files, *flags]
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + EXTRA
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    table = {
        kind: Counter({"refused": 0, "read": 0, "nonsense": 0, "traceback": 0})
        for kind in kinds
    }
    for at in range(count):
        kind = kinds[at % len(kinds)]
        dice = random.Random(f"{seed}/{at}")
        if kind in files:
            suffix, make, read = files[kind]
            path = folder / f"input{suffix}"
            path.write_bytes(make(dice))
            content = path.read_bytes()[:300]
            outcome = _try(partial(read, path), f"{kind}: {content!r}")
        else:
            text = words(dice)
            outcome = _try(partial(flags[kind], text), f"{kind} {text!r}")
        table[kind][outcome] += 1
    print(json.dumps(table))
    sys.exit(any(row["nonsense"] or row["traceback"] for row in table.values()))


def _try(action: Callable[[], Any], what: str) -> str:
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)  # its own time, others' left out
    try:
        action()
    except RobrepError as error:
        if "\n" not in str(error):
            return "refused"
        print(f"{what} gave {error!r}", file=sys.stderr)
    except NonsenseError as error:
        print(f"{what} was read as {error}", file=sys.stderr)
        return "nonsense"
    except Exception:
        print(f"{what}\n{traceback.format_exc()}", file=sys.stderr)
    else:
        return "read"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return "traceback"


if __name__ == "__main__":
    main()
