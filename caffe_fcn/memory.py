"""How much memory can be had, as far as the system tells; asked before much is taken."""

from __future__ import annotations

import os
import re
from pathlib import Path

MUCH = 2**30  # bytes; less is taken without asking


def free() -> int | None:
    """Bytes that can be had without swapping, a container's limit included; None where nobody tells."""
    known = [_total(), _available(), _left_in_container()]
    return min((n for n in known if n is not None), default=None)


def _total() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return None


def _available() -> int | None:
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _left_in_container() -> int | None:
    limit, used = (_read(f"/sys/fs/cgroup/memory.{what}").strip() for what in ("max", "current"))
    return max(0, int(limit) - int(used)) if limit.isdigit() and used.isdigit() else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
