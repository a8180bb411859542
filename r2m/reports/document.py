"""What stands in a report, without how it looks: templates/page.html draws a page of these, rich_table a table.

Text is plain text, as a person or a model said it: whoever draws it escapes it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Cell:
    """`below`: small, on a line of its own. `kind`: classes of the style sheet. `title`: shown when pointed at.

    `colour`: of a dot before the text, an arm's own; `ring`: of an arm whose line is dashed.
    """

    text: str
    below: str = ""
    kind: str = ""
    title: str = ""
    colour: str = ""
    ring: bool = False


Line: TypeAlias = tuple[str, Sequence[Cell | str]]


@dataclass(frozen=True)
class Table:
    """`rows`: a class and the cells of each. `text`: the columns that are not numbers, which stand on the right.

    A heading's last line is its name. `above`: headings over so many columns each.
    """

    head: Sequence[str]
    rows: Sequence[Line]
    text: Collection[int] = (0,)
    above: Sequence[tuple[str, int]] = ()

    @property
    def edges(self) -> set[int]:
        """The columns at which a heading above begins, after the first."""
        return set(accumulate(n for _, n in self.above[:-1]))


@dataclass(frozen=True)
class Plot:
    """A plotly figure, or the sentence that says why there is none. The page needs each `key` once."""

    key: str
    title: str
    drawing: go.Figure | str
    caption: str = ""


@dataclass(frozen=True)
class Note:
    """`links`: text -> address, after it."""

    text: str
    links: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Text:
    """`kind`: "heading"; "command", to be typed, whose line breaks between its settings; "file"; or "labelled"."""

    kind: str
    text: str
    label: str = ""


@dataclass(frozen=True)
class Headline:
    """The headline first. `finding`: "better" or "worse" gives it its colour."""

    sentences: Sequence[str]
    finding: str = ""


@dataclass(frozen=True)
class Tiles:
    """A number, and what it is, each."""

    shown: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Details:
    """Folded away unless `open`."""

    summary: str
    parts: Sequence[Part]
    open: bool = False


@dataclass(frozen=True)
class Beside:
    parts: Sequence[Part]


@dataclass(frozen=True)
class Stack:
    """One below the other: in one place of what stands beside each other."""

    parts: Sequence[Part]


Part: TypeAlias = Table | Plot | Note | Text | Headline | Tiles | Details | Beside | Stack


@dataclass(frozen=True)
class PageSection:
    key: str
    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Page:
    """`tab`: the window's title. `parts`: before the links to the sections. `kind`: "screen" fits on one."""

    tab: str
    title: str
    parts: Sequence[Part]
    sections: Sequence[PageSection]
    kind: str = ""


def heading(key: str) -> str:
    """`key` on two lines: a section or a phase above, the name below."""
    sign = "/" if "/" in key else "."
    section, _, name = key.rpartition(sign)
    return f"{section}{sign}\n{name}" if section else name


def colour_of(findings: Collection[str]) -> str:
    """A verdict's: where all findings are one of the two that have a colour."""
    return next(iter(findings)) if set(findings) in ({"better"}, {"worse"}) else ""
