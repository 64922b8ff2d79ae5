"""What a test asks of a message: the names and values that its reader needs, not the sentence around them."""

from __future__ import annotations

import re


def naming(*parts: object) -> re.Pattern[str]:
    """For `match=`: a message that has these parts in this order, such as file, field, found value, expected value.

    A part stands for itself, and only as a whole word or number: 3 is not found in 32.
    """
    return re.compile(".*".join(map(_whole, map(str, parts))), re.DOTALL)


def _whole(part: str) -> str:
    before, after = (r"(?<!\w)" if part[:1].isalnum() else ""), (r"(?!\w)" if part[-1:].isalnum() else "")
    return before + re.escape(part) + after
