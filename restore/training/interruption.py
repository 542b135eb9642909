"""Ctrl-C, between two updates."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Interruption:
    """Ctrl-C ends a training between two updates, so that what is saved can be gone on from exactly.

    A second Ctrl-C stops at once. Only the main thread is told of signals; elsewhere nothing is changed.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._ask)

    def _ask(self, number: int, frame: object) -> None:
        self.asked = True
        self.end()

    def end(self) -> None:
        """Ctrl-C does again what it did before."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None
