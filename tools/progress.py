"""Says on stderr what a long step is doing, so that nobody wonders whether it hangs.

Invariants: one line when the step starts, one about every ten seconds while it runs and one when it ends; stdout is
never touched, since commands print values there that shells evaluate. Knows nothing of what the step is.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_INTERVAL_S = 10.0


def say(text: str) -> None:
    """Print one line for a human on stderr."""
    print(f"[groundwork] {text}", file=sys.stderr, flush=True)


@contextmanager
def step(label: str, *, expected: str = "") -> Iterator[None]:
    """Announce `label`, repeat it with the elapsed seconds while the body runs, and say how long it took.

    `expected` is a phrase such as "about 3 min, once".
    """
    started = time.monotonic()
    finished = threading.Event()
    hint = f" ({expected})" if expected else ""

    def elapsed() -> str:
        return f"{time.monotonic() - started:.0f} s"

    def tick() -> None:
        while not finished.wait(_INTERVAL_S):
            say(f"{label}: {elapsed()}{hint}")

    say(f"{label}{hint} ...")
    ticker = threading.Thread(target=tick, name="progress", daemon=True)
    ticker.start()
    try:
        yield
    except BaseException:
        say(f"{label}: failed after {elapsed()}")
        raise
    else:
        say(f"{label}: done in {elapsed()}")
    finally:
        finished.set()
        ticker.join()
