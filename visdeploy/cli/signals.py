"""End of a command by a signal, with its temporary files removed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def terminating() -> Iterator[None]:
    """Leave the block by `SystemExit` when the process is told to end, so that the writers of files can clean up.

    The exit code is 128 plus the number of the signal, as that of a process which the signal ends.
    """
    if threading.current_thread() is not threading.main_thread():  # Python runs handlers in the main thread only
        yield
        return

    def leave(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise SystemExit(128 + number)

    # a signal that is ignored, as SIGHUP under nohup, stays ignored
    previous = {each: signal.getsignal(each) for each in _SIGNALS}
    changed = [each for each, handler in previous.items() if handler is signal.SIG_DFL]
    for each in changed:
        signal.signal(each, leave)
    try:
        yield
    finally:
        for each in changed:
            signal.signal(each, previous[each])


@contextmanager
def deferring(note: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Hold back the signals that end the command, and yield a function that lets a held one act, at a safe place.

    Only the first signal is held; a second one acts at once.

    Args:
        note: Called when a signal is held, to tell the user.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    previous = {each: signal.getsignal(each) for each in (signal.SIGINT, *_SIGNALS)}
    handlers = {each: handler for each, handler in previous.items() if callable(handler)}
    held: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        if held:
            handlers[signal.Signals(number)](number, frame)
        held.append(number)
        note()

    def act() -> None:
        if held:
            handlers[signal.Signals(held[0])](held[0], None)

    for each in handlers:
        signal.signal(each, hold)
    try:
        yield act
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
    act()
