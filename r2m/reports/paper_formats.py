"""A table of the paper as CSV, Markdown, LaTeX and on the page. All but CSV show a cell as mean [interval]."""

from __future__ import annotations

import csv
import io
from itertools import groupby

from r2m.reports import document
from r2m.reports.paper_parts import MEASURED, MISSING, Cell, Table
from r2m.results.statistics import Estimate

PARTS = ("mean", "low", "high", "seeds", "runs", "finding", "note")  # of a measured cell, a CSV column each
LATEX = {  # no package is needed for any of these
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "−": "$-$", "–": "--", "Δ": r"$\Delta$", "Ω": r"$\Omega$", "ω": r"$\omega$", "·": r"$\cdot$", "≥": r"$\geq$",
    "±": r"$\pm$", "\n": " ",
}  # fmt: skip


def to_csv(table: Table) -> str:
    """A row each of the table's; a measured column is as many columns as PARTS has. Numbers are not rounded."""
    head = [table.label]
    sources = [c.source for c in table.columns]
    for column, name in zip(table.columns, names(table), strict=True):
        parts = PARTS if column.source == MEASURED else [""]
        head += [f"{column.source}: {name} {part}".rstrip() for part in parts]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    for label, cells in table.rows:
        row = [label]
        for source, cell in zip(sources, cells, strict=True):
            row += _parts(cell) if source == MEASURED else [_plain(cell)]
        writer.writerow(row)
    return out.getvalue()


def to_markdown(table: Table) -> str:
    head = [table.label, "seeds", *(f"{c.source}: {c.heading}" for c in table.columns)]
    rows = [[label, _seeds(cells), *map(_shown, cells)] for label, cells in table.rows]
    aligned = ["---", *["---:"] * (len(head) - 1)]
    lines = [f"| {' | '.join(_cell_of_markdown(c) for c in row)} |" for row in [head, aligned, *rows]]
    notes = "".join(f"- {note}\n" for note in _with_runs(table))
    return f"**Table {table.number}: {table.title}.**\n\n" + "\n".join(lines) + f"\n\n{notes}"


def to_latex(table: Table) -> str:
    """A table environment that needs no package."""
    groups = [(source, len(list(columns))) for source, columns in groupby(c.source for c in table.columns)]
    above = " & ".join(["", "", *(rf"\multicolumn{{{n}}}{{c}}{{{latex(source)}}}" for source, n in groups)])
    head = " & ".join(map(latex, [table.label, "seeds", *(c.heading for c in table.columns)]))
    rows = [
        " & ".join([latex(label), _seeds(cells), *map(_cell_of_latex, cells)]) + r" \\" for label, cells in table.rows
    ]
    notes = "\n\n".join(map(latex, _with_runs(table)))
    return "\n".join([
        r"\begin{table}", r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{latex(table.title)}.}}",
        rf"\begin{{tabular}}{{ll{'r' * len(table.columns)}}}", r"\hline",
        rf"{above} \\", rf"{head} \\", r"\hline", *rows, r"\hline", r"\end{tabular}",
        rf"\par\smallskip\footnotesize\raggedright {notes}", r"\end{table}", "",
    ])  # fmt: skip


def shown(table: Table) -> document.Table:
    """Two rows of headings: where the numbers are from, and what they are. Runs are in the cells' titles."""
    above = [("", 2)]
    above += [(_lines(source), len(list(columns))) for source, columns in groupby(c.source for c in table.columns)]
    head = [table.label, "seeds", *(_lines(c.heading) for c in table.columns)]
    rows: list[document.Line] = [
        ("", [label, _seeds(cells), *(_cell_shown(cell, _count(cells)) for cell in cells)])
        for label, cells in table.rows
    ]  # fmt: skip
    return document.Table(head, rows, above=above)


def notes_of(table: Table) -> list[str]:
    """What the reader must know: what was measured, how to read a cell, what is missing and why."""
    missing = {f"{label}: {cell.why}" for label, cells in table.rows for cell in cells
               if cell.text == MISSING}  # fmt: skip
    return [
        f"{capital(table.measured)}. Mean over seeds [95 % bootstrap interval].",
        *table.notes,
        *([f"Missing: {'; '.join(sorted(missing))}."] if missing else []),
    ]


def _with_runs(table: Table) -> list[str]:
    runs = [f"{label}: {', '.join(ids)}" for label, ids in runs_of(table).items()]
    return [*notes_of(table), *([f"Runs: {'; '.join(runs)}."] if runs else [])]


def runs_of(table: Table) -> dict[str, list[str]]:
    """A row's label -> the names of the runs that it is made of."""
    rows = {label: list(dict.fromkeys(run for c in cells for run in c.runs)) for label, cells in table.rows}
    return {label: runs for label, runs in rows.items() if runs}


def latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def names(table: Table) -> list[str]:
    """The headings; one that repeats, such as Δ, is named after the column that it follows."""
    names: list[str] = []
    for i, c in enumerate(table.columns):
        again = [o.heading for o in table.columns if o.source == c.source].count(c.heading) > 1
        names.append(f"{table.columns[i - 1].heading} {c.heading}" if again else c.heading)
    return names


def _parts(cell: Cell) -> list[str]:
    e = cell.estimate
    if e is None:
        return ["" if cell.text == MISSING else cell.text, "", "", "", "", "", cell.why]
    low, high = ("", "") if e.interval is None else map(repr, e.interval)
    return [repr(e.mean), low, high, str(e.n), " ".join(cell.runs), cell.finding, cell.why]


def _plain(cell: Cell) -> str:
    return cell.text.replace("−", "-")


def _shown(cell: Cell) -> str:
    """For Markdown: all of it in a line."""
    if cell.estimate is None:
        return cell.text
    return " ".join(filter(None, [_value(cell), _interval(cell.estimate, cell.places), _finding(cell)]))


def _value(cell: Cell) -> str:
    assert cell.estimate is not None
    return ("+" if cell.finding and cell.estimate.mean > 0 else "") + _fixed(cell.estimate.mean, cell.places)


def _interval(e: Estimate, places: int) -> str:
    return "" if e.interval is None else f"[{', '.join(_fixed(end, places) for end in e.interval)}]"


def _finding(cell: Cell) -> str:
    return f"({cell.finding})" if cell.finding in ("better", "worse") else ""


def _fixed(value: float, places: int) -> str:
    """A column's places in every cell, unlike numbers.decimals; no minus before a 0."""
    return f"{round(value, places) + 0.0:.{places}f}".replace("-", "−")


def _count(cells: tuple[Cell, ...]) -> int:
    return max((cell.estimate.n for cell in cells if cell.estimate), default=0)


def _seeds(cells: tuple[Cell, ...]) -> str:
    return str(_count(cells) or "")


def _cell_of_latex(cell: Cell) -> str:
    """The interval below the mean."""
    if cell.estimate is None:
        return latex(cell.text)
    mean = latex(" ".join(filter(None, [_value(cell), _finding(cell)])))
    below = latex(_interval(cell.estimate, cell.places))
    return rf"\shortstack[r]{{{mean}\\{{\tiny {below}}}}}" if below else mean


def _cell_of_markdown(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _cell_shown(cell: Cell, row_seeds: int) -> document.Cell:
    e = cell.estimate
    if e is None:
        return document.Cell(cell.text, title=cell.why)
    fewer = f" (n = {e.n})" if e.n < row_seeds else ""
    title = f"{e.n} seed{'s' * (e.n != 1)}: {', '.join(cell.runs)}"
    if cell.finding:
        title = f"{cell.finding}; p = {e.p:.3g}; {title}"
    kind = cell.finding if cell.finding in ("better", "worse") else ""
    return document.Cell(_value(cell), f"{_interval(e, cell.places)}{fewer}".strip(), kind, title)


def _lines(heading: str) -> str:
    """Lines at its commas where it is long."""
    return heading.replace(", ", ",\n") if len(heading) > 24 else heading
