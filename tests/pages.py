"""Pages and tables as a reader finds his way in them: a number is what stands in a row, under a heading.

Tests ask for facts by way of these, so that a page may say the same in other words or in another order of columns.
And pages in a real browser.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--virtual-time-budget=20000", "--enable-logging=stderr", "--dump-dom",
)  # fmt: skip


@dataclass
class Grid:
    """A table. `marks`: the rows' classes, which the style sheet has colours for."""

    head: list[str]
    rows: list[list[str]]
    marks: list[str] = field(default_factory=list)

    def column(self, heading: str) -> int:
        """Which column has this heading: the expression matches all of it, or, if none is so, a part of one."""
        for match in (re.fullmatch, re.search):
            found = [i for i, text in enumerate(self.head) if match(heading, text, re.I)]
            if found:
                assert len(found) == 1, f"{heading!r} are several of {self.head}"
                return found[0]
        raise AssertionError(f"no heading {heading!r} among {self.head}")

    def row(self, *labels: str) -> int:
        """Which row has these labels, each a cell or its beginning; an empty first cell repeats the one above."""
        for match in (re.fullmatch, re.match):
            found = []
            first = ""
            for i, cells in enumerate(self.rows):
                first = cells[0] or first
                if all(any(match(label, cell) for cell in [first, *cells[1:]]) for label in labels):
                    found.append(i)
            if found:
                assert len(found) == 1, f"{labels} are several of {self.rows}"
                return found[0]
        raise AssertionError(f"no row {labels} among {self.rows}")

    def cell(self, *labels: str, under: str) -> str:
        return self.rows[self.row(*labels)][self.column(under)]

    def number(self, *labels: str, under: str) -> float:
        """The first number of a cell: what stands below a mean is its interval."""
        cell = self.cell(*labels, under=under)
        found = re.search(r"[-−+]?\d[\d,]*(\.\d+)?(e[-−+]?\d+)?", cell)
        assert found, f"no number in {cell!r}"
        return float(found.group().replace("−", "-").replace(",", ""))

    def mark(self, *labels: str) -> str:
        return self.marks[self.row(*labels)]

    def under(self, heading: str) -> list[str]:
        column = self.column(heading)
        return [cells[column] for cells in self.rows]


class Page(HTMLParser):
    """A report without its scripts and its style. `text`: what is seen, on one line; `drawings`: what a browser is to
    draw, by the plot's key; `outside`: the addresses of what the page needs beside itself; `tags`: all that it opens.
    """

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tables: list[Grid] = []
        self.outside: list[str] = []
        self.tags: list[str] = []
        self._parts: list[str] = []
        self._hidden = 0
        self._cell: list[str] | None = None
        self._spans: list[list[tuple[str, int]]] = []
        self.plotly = html.count(get_plotlyjs())
        own = html.replace(get_plotlyjs(), "")
        self.feed(own)
        self.drawings = dict(_drawings(own))
        self.text = " ".join(" ".join(self._parts).split())

    def table(self, *headings: str) -> Grid:
        """The one table that has all of these headings."""
        found = [t for t in self.tables if all(any(re.search(h, x, re.I) for x in t.head) for h in headings)]
        assert len(found) == 1, f"{len(found)} tables with {headings} among {[t.head for t in self.tables]}"
        return found[0]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.tags.append(tag)
        if tag in ("script", "style"):
            self._hidden += 1
        if tag in ("link", "iframe") or "src" in given:
            self.outside.append(given.get("src", given.get("href", tag)))
        if tag == "table":
            self.tables.append(Grid([], []))
            self._spans = []
        elif tag == "tr":
            self._row: list[tuple[str, int]] = []
            self._heading, self._mark = True, given.get("class", "")
        elif tag in ("td", "th"):
            self._heading = self._heading and tag == "th"
            self._cell, self._span = [], int(given.get("colspan", "1"))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._hidden -= 1
        elif tag in ("td", "th") and self._cell is not None:
            self._row.append((" ".join("".join(self._cell).split()), self._span))
            self._cell = None
        elif tag == "tr" and self._heading:
            self._spans.append(self._row)
            rows = [[text for text, span in row for _ in range(span)] for row in self._spans]
            width = max(map(len, rows))
            rows = [row + [""] * (width - len(row)) for row in rows]
            self.tables[-1].head = [_heading(": ".join(filter(None, texts))) for texts in zip(*rows, strict=True)]
        elif tag == "tr":
            self.tables[-1].rows.append([text for text, _ in self._row])
            self.tables[-1].marks.append(self._mark)

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._parts.append(data)
            if self._cell is not None:
                self._cell.append(f" {data} ")


@dataclass
class Panel:
    """One pair of axes. `traces`: name -> x and y of what the legend names; "" of what it does not."""

    title: str
    x: str
    y: str
    traces: dict[str, tuple[list[Any], list[Any]]]


def panels(data: list[dict[str, Any]], layout: dict[str, Any]) -> list[Panel]:
    """A plotly figure's, in their order: the n-th title is that of the n-th pair of axes."""
    titles = [note["text"] for note in layout.get("annotations", [])]
    axes = sorted((key[5:] for key in layout if key.startswith("yaxis")), key=lambda n: int(n or 1))
    found = []
    for i, n in enumerate(axes):
        x, y = (layout[f"{axis}axis{n}"].get("title", {}).get("text", "") for axis in "xy")
        own = [trace for trace in data if trace.get("yaxis", "y") == f"y{n}"]
        traces = {trace.get("name") or "": (trace.get("x"), trace.get("y")) for trace in own}
        found.append(Panel(titles[i] if i < len(titles) else "", x, y, traces))
    return found


def _drawings(html: str) -> Iterator[tuple[str, list[Panel]]]:
    read = json.JSONDecoder().raw_decode
    for call in re.finditer(r'Plotly\.newPlot\(\s*"plot-([\w-]+)",\s*', html):
        data, end = read(html, call.end())
        layout, _ = read(html, html.index("{", end))
        yield call[1], panels(data, layout)


def grids(drawn: Any) -> list[Grid]:
    """The tables of what a rich console prints."""
    return [
        Grid(
            [_heading(" ".join(_plain(column.header).split())) for column in table.columns],
            [
                [" ".join(_plain(cell).split()) for cell in cells]
                for cells in zip(*(list(column.cells) for column in table.columns), strict=True)
            ],
            [str(row.style or "") for row in table.rows],
        )
        for table in _tables(drawn)
    ]


def _tables(drawn: Any) -> Iterator[Any]:
    if hasattr(drawn, "columns"):
        yield drawn
    for part in getattr(drawn, "renderables", ()):
        yield from _tables(part)


def _plain(cell: Any) -> str:
    return getattr(cell, "plain", cell)


def _heading(text: str) -> str:
    """A metric or a setting that stands on two lines, on one."""
    return re.sub(r"([/.]) ", r"\1", text)


def drawn_plots(html: Path, profile: Path) -> tuple[dict[str, int], str]:
    """How many drawings each plot of a report has once the browser is done, and the page as it then is.

    Fails where a script did.
    """
    page = subprocess.run(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", html.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "Uncaught" not in page.stderr
    parts = re.split(r'id="plot-([\w-]+)"', page.stdout)
    plots = zip(parts[1::2], parts[2::2], strict=True)
    return {name: part.count('class="main-svg"') for name, part in plots}, page.stdout
