"""A table of the paper, whose cells know their interval, seeds and runs, as CSV, Markdown, LaTeX and on the page.

All but CSV show a cell as mean [interval].
"""

import csv
import io
from dataclasses import dataclass
from itertools import groupby

from r2m.reports import document
from r2m.results.statistics import Estimate

MEASURED = "measured"
MISSING = "–"  # what a cell shows that should have a number
PARTS = ("mean", "low", "high", "seeds", "runs", "finding", "note")  # of a measured cell, a CSV column each
LATEX = str.maketrans({  # no package is needed for any of these
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "−": "$-$", "–": "--", "Δ": r"$\Delta$", "Ω": r"$\Omega$", "ω": r"$\omega$", "·": r"$\cdot$", "≥": r"$\geq$",
    "±": r"$\pm$", "\n": " ",
})  # fmt: skip


@dataclass(frozen=True)
class PaperCell:
    """`text`: what is shown where there is no estimate: nothing where there is none to have. `why`: what a cell
    without an estimate has to say, MISSING ones above all."""

    text: str = ""
    estimate: Estimate | None = None
    places: int = 1
    runs: tuple[str, ...] = ()
    finding: str = ""  # of a difference: one of r2m.results.statistics.FINDINGS
    why: str = ""


@dataclass(frozen=True)
class Column:
    source: str  # MEASURED, or which of the paper's settings
    heading: str


@dataclass(frozen=True)
class PaperTable:
    """`label`: what the first column holds. `measured`: what the measured columns are, in words."""

    number: int
    title: str
    measured: str
    label: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, tuple[PaperCell, ...]], ...]
    notes: tuple[str, ...] = ()


def to_csv(table: PaperTable) -> str:
    """A row each of the table's; a measured column is as many columns as PARTS has. Numbers are not rounded."""
    head, rows = [table.label], [[label] for label, _ in table.rows]
    for i, (column, name) in enumerate(zip(table.columns, names(table), strict=True)):
        own = column.source == MEASURED
        head += [f"{column.source}: {name} {part}".rstrip() for part in (PARTS if own else [""])]
        for row, (_, cells) in zip(rows, table.rows, strict=True):
            row += _parts(cells[i]) if own else [cells[i].text.replace("−", "-")]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([head, *rows])
    return out.getvalue()


def to_markdown(table: PaperTable) -> str:
    head = [table.label, "seeds", *(f"{c.source}: {c.heading}" for c in table.columns)]
    aligned = ["---", *["---:"] * (len(head) - 1)]
    shown = [
        [label, _seeds(cells), *(" ".join(filter(None, _said(cell))) for cell in cells)]
        for label, cells in table.rows
    ]
    rows = [[text.replace("|", r"\|").replace("\n", " ") for text in row] for row in (head, aligned, *shown)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    notes = "".join(f"- {note}\n" for note in _with_runs(table))
    return f"**Table {table.number}: {table.title}.**\n\n" + "\n".join(lines) + f"\n\n{notes}"


def to_latex(table: PaperTable) -> str:
    """A table environment that needs no package. The interval is below the mean."""

    def cell(cell: PaperCell) -> str:
        value, interval, finding = map(latex, _said(cell))
        mean = f"{value} {finding}".strip()
        return rf"\shortstack[r]{{{mean}\\{{\tiny {interval}}}}}" if interval else mean

    above = ["", "", *(rf"\multicolumn{{{n}}}{{c}}{{{latex(source)}}}" for source, n in _sources(table))]
    head = [*map(latex, [table.label, "seeds", *(c.heading for c in table.columns)])]
    body = [[latex(label), _seeds(cells), *map(cell, cells)] for label, cells in table.rows]
    first, second, *rows = (" & ".join(row) + r" \\" for row in (above, head, *body))
    notes = "\n\n".join(map(latex, _with_runs(table)))
    return "\n".join([
        r"\begin{table}", r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{latex(table.title)}.}}",
        rf"\begin{{tabular}}{{ll{'r' * len(table.columns)}}}", r"\hline",
        first, second, r"\hline", *rows, r"\hline", r"\end{tabular}",
        rf"\par\smallskip\footnotesize\raggedright {notes}", r"\end{table}", "",
    ])  # fmt: skip


def to_part(table: PaperTable) -> document.Table:
    """Two rows of headings: where the numbers are from, and what they are. Runs are in the cells' titles."""

    def cell(cell: PaperCell, seeds: str) -> document.Cell:
        (value, below, finding), e = _said(cell), cell.estimate
        if e is None:
            return document.Cell(value, title=cell.why)
        title = f"{e.n} seed{'s' * (e.n != 1)}: {', '.join(cell.runs)}"
        if cell.finding:
            title = f"{cell.finding}; p = {e.p:.3g}; {title}"
        below = f"{below}{f' (n = {e.n})' * (str(e.n) != seeds)}".strip()
        return document.Cell(value, below, finding.strip("()"), title)

    def broken(heading: str) -> str:
        """At its commas where it is long."""
        return heading.replace(", ", ",\n") if len(heading) > 24 else heading

    rows: list[document.Line] = [
        ("", [label, _seeds(cells), *(cell(c, _seeds(cells)) for c in cells)]) for label, cells in table.rows
    ]
    above = [("", 2), *((broken(source), n) for source, n in _sources(table))]
    return document.Table([table.label, "seeds", *(broken(c.heading) for c in table.columns)], rows, above=above)


def notes_of(table: PaperTable) -> list[str]:
    """What the reader must know: what was measured, how to read a cell, what is missing and why."""
    missing = {f"{label}: {cell.why}" for label, cells in table.rows for cell in cells
               if cell.text == MISSING}  # fmt: skip
    return [
        f"{capital(table.measured)}. Mean over seeds [95 % bootstrap interval].",
        *table.notes,
        *([f"Missing: {'; '.join(sorted(missing))}."] if missing else []),
    ]


def runs_by_row(table: PaperTable) -> dict[str, list[str]]:
    """A row's label -> the names of the runs that it is made of."""
    rows = {label: list(dict.fromkeys(run for c in cells for run in c.runs)) for label, cells in table.rows}
    return {label: runs for label, runs in rows.items() if runs}


def latex(text: str) -> str:
    return text.translate(LATEX)


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def names(table: PaperTable) -> list[str]:
    """The headings; one that repeats, such as Δ, is named after the column that it follows."""
    return [
        f"{table.columns[i - 1].heading} {c.heading}" if table.columns.count(c) > 1 else c.heading
        for i, c in enumerate(table.columns)
    ]


def _with_runs(table: PaperTable) -> list[str]:
    runs = [f"{label}: {', '.join(ids)}" for label, ids in runs_by_row(table).items()]
    return [*notes_of(table), *([f"Runs: {'; '.join(runs)}."] if runs else [])]


def _sources(table: PaperTable) -> list[tuple[str, int]]:
    """Where neighbouring columns are from, and how many these are."""
    return [(source, len(list(columns))) for source, columns in groupby(c.source for c in table.columns)]


def _parts(cell: PaperCell) -> list[str]:
    e = cell.estimate
    if e is None:
        return ["" if cell.text == MISSING else cell.text, "", "", "", "", "", cell.why]
    low, high = ("", "") if e.interval is None else map(repr, e.interval)
    return [repr(e.mean), low, high, str(e.n), " ".join(cell.runs), cell.finding, cell.why]


def _said(cell: PaperCell) -> tuple[str, str, str]:
    """Its mean, or its text; its interval; what it finds, in parentheses. Nothing for what it has not."""
    e = cell.estimate
    if e is None:
        return cell.text, "", ""
    mean, *ends = (_fixed(value, cell.places) for value in (e.mean, *(e.interval or ())))
    sign, told = "+" * bool(cell.finding and e.mean > 0), cell.finding in ("better", "worse")
    return sign + mean, f"[{', '.join(ends)}]" * bool(ends), f"({cell.finding})" * told


def _fixed(value: float, places: int) -> str:
    """A column's places in every cell, unlike numbers.decimals; no minus before a 0."""
    return f"{round(value, places) + 0.0:.{places}f}".replace("-", "−")


def _seeds(cells: tuple[PaperCell, ...]) -> str:
    """The most that a cell of the row has."""
    return str(max((cell.estimate.n for cell in cells if cell.estimate), default=""))
