"""Ctrl-C and SIGTERM during training: the first one waits for the end of the iteration."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interruption:
    """While it is open, the first SIGINT or SIGTERM is only noted; the next one does what it did before.

    One that is ignored, as a shell has it for what runs in the background, stays ignored. Signals come to the
    main thread; opened in another one this does nothing.

    Attributes
    ----------
    number : int
        The signal that came, 0 if none has.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}
        self._told = -1

    def came(self) -> bool:
        """Tell whether a signal has come."""
        return self.number != 0

    def __enter__(self) -> Interruption:
        heeded = [number for number in self.SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        if heeded and threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in heeded}
            self._told = signal.set_wakeup_fd(-1)  # whoever would end a process that takes its time
        return self

    def __exit__(self, *_: object) -> None:
        if self._before:
            signal.set_wakeup_fd(self._told, warn_on_full_buffer=False)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, _: FrameType | None) -> None:
        self.number = number
        self.__exit__()
