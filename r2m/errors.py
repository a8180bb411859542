"""The one exception that means "the input is wrong": shown to a user as one line, exit code 2, no trace."""

from typing import Any

LONGEST = 2000  # characters of a message
SHOWN = 100  # of a value in it


class UserError(ValueError):
    """Bad input. The message names the field, the value it had and what is allowed; it is one line of printable text,
    whatever it is made of."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """Without line ends, with escapes for what cannot be printed, and not endless."""
    text = " ".join(text[: 2 * LONGEST].split())
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def shown(value: Any) -> str:
    """`repr`, cut in the middle where it is long. A value may hold anything that YAML can say."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits; a list inside of itself
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]}...{text[-SHOWN // 4 :]}"
