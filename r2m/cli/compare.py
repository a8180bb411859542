"""Finished, running and stopped runs beside each other."""

import json
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from r2m.cli.common import out, say
from r2m.cli.options import Storage, local, storage_path
from r2m.errors import UserError

app = typer.Typer()


@app.command()
def compare(
    names: Annotated[list[str] | None, Argument(metavar="RUN", help="runs, or sweeps")] = None,
    filter_: Annotated[str | None, Option("--filter", help="and the runs that this MLflow filter finds")] = None,
    metric: Annotated[str | None, Option(help="what arms are judged by; else eval/gold where there is one")] = None,
    baseline: Annotated[str | None, Option(metavar="ARM", help="else RLOO, or the first arm")] = None,
    to: Annotated[Path | None, Option("--out", callback=local, help="the page; else STORAGE/compare.html")] = None,
    to_json: Annotated[Path | None, Option("--json", callback=local, help="the numbers, as a file")] = None,
    storage: Storage = None,
    tracking_uri: Annotated[str | None, Option(help="MLflow's; else SQLite in the storage")] = None,
) -> None:
    """Arms side by side: means over seeds, paired differences, curves, reward over KL, texts."""
    from r2m.files import write_whole
    from r2m.reports.compare_page import compare_html, compare_terminal
    from r2m.results.assessment import read_assessment
    from r2m.results.comparison import compare_runs
    from r2m.results.comparison_text import numbers
    from r2m.results.table import Result
    from r2m.runs.find import journals
    from r2m.tracking.mlflow_sink import default_tracking_uri
    from r2m.tracking.search import search

    folder = Path(storage_path(storage))
    if not names and filter_ is None:
        raise UserError("RUN: give runs, sweeps or --filter")
    for option, path in (("--out", to), ("--json", to_json)):
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise UserError(f"{option} {str(path)!r}: a file in a folder that exists is allowed")
    found = [] if filter_ is None else search(tracking_uri or default_tracking_uri(folder), filter_)
    views, missing = journals(folder, dict.fromkeys([*(names or []), *found]))
    if not views:
        raise UserError(f"RUN: no journal in {folder} of {', '.join(missing) or 'any run: the filter finds none'}")
    results = [Result(view, read_assessment(folder / "runs" / run)) for run, view in views.items()]
    comparisons, notes = compare_runs(results, metric, baseline)
    if missing:
        notes.append(f"Left out, since {folder} has no journal of them: {', '.join(missing)}.")
    notes += [
        f"{run}: its journal ends in {view.nuls} bytes with NULs (a power cut?), which are left out."
        for run, view in views.items()
        if view.nuls
    ]
    for c in comparisons:
        out.print(compare_terminal(c))
    for note in notes:
        say(note)
    few = names if names and len(names) <= 3 and not found else None
    title = ", ".join(few) if few else f"{len(views)} runs" + (f" where {filter_}" if filter_ and not names else "")
    page = to or folder / "compare.html"
    try:
        write_whole(page, compare_html(title, comparisons, notes))
        out.print(f"written: {page}", soft_wrap=True, highlight=False)
    except OSError as error:  # of a storage that can only be read: the comparison has been said
        if to is not None:
            raise
        say(f"not written: {page} ({error.strerror}); --out FILE puts the page elsewhere")
    if to_json is not None:
        write_whole(to_json, json.dumps(numbers(comparisons, notes), indent=2, allow_nan=False) + "\n")
        out.print(f"written: {to_json}", soft_wrap=True, highlight=False)
