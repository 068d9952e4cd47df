"""Being asked to stop: signals as a flag that work looks at between its steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def signals() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a flag, given as a function; a second one acts as it did before.

    Outside the main thread, where Python takes no signals, the flag stays down.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    old = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: Any) -> None:
        del frame
        caught.append(number)
        for each, previous in old.items():
            signal.signal(each, previous)

    for number in old:
        signal.signal(number, handle)
    try:
        yield lambda: bool(caught)
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)
