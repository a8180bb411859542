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


DISK_FULL = ("No space left on device", "database or disk is full", "Disk quota exceeded")


def reason_of(error: BaseException) -> str:
    """What an error says, without the statements that a database's error quotes; a full disk by its name.

    An error that was raised from another may say less than that one: of a full disk, the whole chain is asked.
    """
    link: BaseException | None = error
    first = ""
    while link is not None:
        lines = [line.strip() for line in str(link).splitlines() if line.strip()]
        full = next((line for line in lines if any(words in line for words in DISK_FULL)), None)
        if full is not None:
            return full if full.startswith("disk full: ") else f"disk full: {full[:300]}"
        first = first or (lines[0][:300] if lines else "")
        link = link.__cause__ or link.__context__
    return first or type(error).__name__
