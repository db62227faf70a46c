"""Ctrl-C and SIGTERM during training: the first one waits for the end of the iteration."""

from __future__ import annotations

import os
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
        self._told = self._ours = -1

    def came(self) -> bool:
        """Tell whether a signal has come."""
        return self.number != 0

    def __enter__(self) -> Interruption:
        heeded = [number for number in self.SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        if heeded and threading.current_thread() is threading.main_thread():
            reading, self._ours = os.pipe()
            os.set_blocking(self._ours, False)
            self._told = signal.set_wakeup_fd(self._ours)  # whoever would end a process that takes its time
            threading.Thread(target=self._tell_of_others, args=(reading, self._told), daemon=True).start()
            self._before = {number: signal.signal(number, self._note) for number in heeded}
        return self

    def __exit__(self, *_: object) -> None:
        if self._before:
            signal.set_wakeup_fd(self._told, warn_on_full_buffer=False)
            os.close(self._ours)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, _: FrameType | None) -> None:
        self.number = number
        self.__exit__()

    def _tell_of_others(self, signals: int, told: int) -> None:
        """Tell who was `told` of all but the first: Python, inside MXNet, learns of several as of one."""
        noted = False
        while number := os.read(signals, 1):
            if noted and told >= 0:
                os.write(told, number)
            noted = noted or number[0] in self.SIGNALS
        os.close(signals)
