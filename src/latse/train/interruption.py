"""Ctrl-C and SIGTERM during training: the first one waits for the end of the iteration."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class Interruption:
    """While it is open, the first SIGINT or SIGTERM is only noted; the next one does what it did before.

    One that is ignored, as a shell has it for what runs in the background, stays ignored. To be opened in the
    main thread, the only one that Python lets handle signals.

    Attributes
    ----------
    number : int
        The signal that came, 0 if none has.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def came(self) -> bool:
        """Tell whether a signal has come."""
        return self.number != 0

    def __enter__(self) -> Interruption:
        heeded = [number for number in self.SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._note) for number in heeded}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.number = number
        self.__exit__()
