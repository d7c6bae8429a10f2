"""What a terminal may be told: names out of a file are not to move its cursor, or to change what is read."""

from __future__ import annotations


def printable(text: str, keep: str = "") -> str:
    """The text with escapes for what does not print: control characters, line breaks, marks of direction.

    Characters in `keep` stay.
    """
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)
