"""A bar on stderr, only on a terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType


class Progress:
    """`with Progress("writing", total) as step: step(n)`; silent if `quiet` or without a terminal."""

    def __init__(self, what: str, total: int, unit: str = "", quiet: bool = False) -> None:
        self.what, self.total, self.unit = what, max(total, 1), unit
        self.done = 0
        self._shown = 0.0
        self._live = not quiet and sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __call__(self, n: int = 1) -> None:
        """`n` more are done."""
        self.done += n
        if self._live and time.monotonic() - self._shown > 0.1:
            self._shown = time.monotonic()
            share = min(1.0, self.done / self.total)
            bar = "#" * round(30 * share)
            sys.stderr.write(f"\r{self.what} [{bar:30}] {share:4.0%} {self.unit}")
            sys.stderr.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live and self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
