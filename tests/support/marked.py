"""What stands between two marks of a document, made anew."""

from __future__ import annotations

import re


def between(text: str, begin: str, made: str, end: str) -> str:
    """Return the document with `made` between its marks. ValueError if they are not there once."""
    marks = re.escape(begin) + r".*?" + re.escape(end)
    found, count = re.subn(marks, lambda _: f"{begin}{made}{end}", text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{count} places begin with {begin.strip()}")
    return found
