"""Numbers with their units, for people."""

from __future__ import annotations


def bytes_text(n: float) -> str:
    """1536 -> '1.5 KiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024 or unit == "GiB":
            break
        n /= 1024
    return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"


def count_text(n: float) -> str:
    """134000000 -> '134.0 M'; of things, not of bytes."""
    for unit in ("", "k", "M", "G", "T"):
        if abs(n) < 1000 or unit == "T":
            break
        n /= 1000
    return f"{n:.0f}" if not unit else f"{n:.1f} {unit}"
