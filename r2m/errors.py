"""The one exception that means "the input is wrong": shown to a user as one line, exit code 2, no trace."""

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

LONGEST_MESSAGE = 2000  # characters of a message
SHOWN = 100  # of a value in it


class UserError(ValueError):
    """Bad input. The message names the field, the value it had and what is allowed; it is one line of printable text,
    whatever it is made of."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """Without line ends, with escapes for what cannot be printed, and not endless."""
    text = " ".join(text[: 2 * LONGEST_MESSAGE].split())
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 3] + "..."


def shown(value: Any) -> str:
    """`repr`, cut in the middle where it is long. A value may hold anything that YAML can say."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits; a list inside of itself
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]}...{text[-SHOWN // 4 :]}"


def said(error: BaseException) -> str:
    """Of an error that a user's own code raised: its kind, and what it says, if it can say anything."""
    with suppress(Exception):
        if text := one_line(str(error)):
            return f"{type(error).__name__}: {text}"
    return type(error).__name__


def brief(error: BaseException) -> str:
    """An error's own words on one short line."""
    return one_line(str(error))[:200] or type(error).__name__


DISK_FULL = ("No space left on device", "database or disk is full", "Disk quota exceeded")


def reason_of(error: BaseException) -> str:
    """Why, in one line: of an error that was raised from others what the database or the disk said, without the
    statement that it was said of; a full disk by its name."""
    links = list(_chain(error))
    for link in links:
        full = [line.strip() for line in str(link).splitlines() if any(words in line for words in DISK_FULL)]
        if full:
            return one_line(full[0] if full[0].startswith("disk full: ") else f"disk full: {full[0][:300]}")
    links.sort(key=lambda link: not isinstance(link, sqlite3.Error))
    said = [line.strip() for link in links for line in str(link).splitlines() if line.strip()]
    return one_line(said[0][:300]) if said else type(error).__name__


def of_database(error: BaseException) -> bool:
    """Whether it is, or was raised from, SQLite's."""
    return any(isinstance(link, sqlite3.Error) for link in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__
