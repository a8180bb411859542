"""A sweep from its file to its answer: `<storage>/sweeps/<name>`, one driver at a time, resumed after anything.

The folder holds the sweep file, the recipe as it was when the sweep began (what becomes of the recipe's own file is
nothing to it from then on), study.db (Optuna's), artifacts/ (pictures for its dashboard), the sweep's journal, and
what the answer is read from: answer.json, report.html, ranking.json, answer.png and importance.png. The open journal
is the lock against a second driver.
"""

import json
import re
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import optuna
import yaml

from r2m.config import Config, digest, override
from r2m.config.load import read_tree
from r2m.config.uris import sqlite_uri
from r2m.errors import UserError
from r2m.files import folder_made_whole, made_whole, write_whole
from r2m.line_file import is_held
from r2m.results.answer import Answer
from r2m.runs.find import sweep_runs
from r2m.runs.folder import ANSWER_FILES, JOURNAL, check_name, is_name, none_of_that_name
from r2m.runs.journal import Journal, JournalReader, JournalView, find, read
from r2m.runs.records import worked_s
from r2m.stages.prepare import member_models, prepare
from r2m.stages.progress import Progress, silent
from r2m.sweeps.answer import answer
from r2m.sweeps.schema import Sweep
from r2m.sweeps.settings import slug
from r2m.sweeps.spec import config_of, load_sweep
from r2m.sweeps.study import open_study, study_to_read
from r2m.tracking.mlflow_sink import default_tracking_uri
from r2m.training.start import facts_of

FILES = ("sweep.yaml", "sweep.py")
RECIPE, STUDY, PICTURES = "recipe.yaml", "study.db", "artifacts"


@dataclass(frozen=True)
class Opened:
    """A sweep as its folder has it."""

    sweep: Sweep
    name: str
    storage: str
    extra: tuple[str, ...]  # settings of every run that are not the sweep's own

    @property
    def folder(self) -> Path:
        return sweep_folder(self.storage, self.name)

    @property
    def text(self) -> str:
        return sweep_file(self.folder).read_text()

    @property
    def base(self) -> Config:
        """The configuration of the sweep's recipe without any parameter."""
        return config_of(self.sweep, {}, self.sweep.seeds[0], *self.extra)

    @property
    def database(self) -> str:
        return sqlite_uri(self.folder.absolute() / STUDY)

    @property
    def tracking_uri(self) -> str:
        return self.base.run.tracking_uri or default_tracking_uri(self.storage)

    @property
    def experiment(self) -> str:
        """The MLflow experiment of its runs."""
        return f"r2m/sweeps/{self.name}"

    def study(self, say: Callable[[str], None] = print) -> optuna.Study:
        """`say`: told where another process holds the database, which is then waited for."""
        return open_study(self.sweep, self.database, self.name, say)

    def study_to_read(self, say: Callable[[str], None] = print) -> optuna.Study:
        return study_to_read(self.sweep, self.database, self.name, (self.folder / STUDY).is_file(), say)


def new_sweep(
    file: str,
    name: str | None,
    storage: str,
    workers: int | None = None,
    tracking_uri: str | None = None,
    progress: Progress = silent,
) -> Opened:
    """Check a sweep file, prepare the models and start the sweep's journal.

    Raises UserError, with nothing left behind, for a mistake in the file, a name that is taken or unusable data.
    """
    sweep = load_sweep(file, workers)
    if name is None:
        stem = re.sub(r"[^\w.-]+", "-", Path(file).stem, flags=re.ASCII).strip(".-")[:60] or "sweep"
        name = f"{stem}-{secrets.token_hex(2)}"
    check_name("--name", name)
    opened = Opened(sweep, name, storage, extra_settings(storage, tracking_uri))
    if JournalReader(opened.folder / JOURNAL).new_records():
        raise UserError(f"--name {name!r}: there is such a sweep; go on with it by --resume {name}")
    arms = "|".join([r"t\d{3,}", *map(slug, sweep.baselines)])
    for run in sorted((Path(storage).absolute() / "runs").glob(f"{name}-*")):
        if re.fullmatch(rf"{re.escape(name)}-({arms})-s\d+", run.name):
            raise UserError(f"--name {name!r}: {storage} has runs of that name ({run.name}); take another")
    base = opened.base
    facts = facts_of(base, prepare(base, progress))
    built = map(sweep.build, [*sweep.points(), *sweep.baselines.values()])
    for config in {member_models(config): config for config in built}.values():  # each ensemble's members
        prepare(config.model_copy(update={"run": base.run}), progress)
    if not JournalReader(opened.folder / JOURNAL).new_records():
        # Of an older version, killed while it made it.
        shutil.rmtree(opened.folder, ignore_errors=True)
    tree = sweep.model_dump(mode="json")
    with folder_made_whole(opened.folder, f"--name {name!r}") as aside, Journal(aside / JOURNAL) as journal:
        shutil.copyfile(file, aside / ("sweep.py" if file.endswith(".py") else "sweep.yaml"))
        recipe = yaml.safe_dump(read_tree(sweep.recipe), sort_keys=False, allow_unicode=True)
        (aside / RECIPE).write_text(recipe, encoding="utf-8")
        journal.start(
            run_id=name,
            config={"sweep": tree, "workers": workers, "tracking_uri": tracking_uri},
            config_hash=digest([tree, base.digest()]),
            experiment=opened.experiment,
            tags={"r2m.arm": "sweep", "r2m.sweep": name, "r2m.role": "sweep"},
            **facts,
        )
    return open_sweep(storage, name)


def open_sweep(storage: str, name: str) -> Opened:
    """A sweep that there is, with the recipe that it keeps; of one begun before recipes were kept, the recipe itself.

    Raises UserError where there is none, naming those there are, or where its file or recipe is not the one it began
    with.
    """
    folder = sweep_folder(storage, name)
    view = find(folder / JOURNAL) if is_name(name) else None
    if view is None and is_name(name) and (folder / JOURNAL).is_file():
        raise UserError(f"SWEEP = {name!r}: its journal has no whole line to go on from; start another")
    if view is None:
        raise none_of_that_name("SWEEP", name, storage, folder.parent)
    start, given = view.start, view.start["config"]
    if not {"sweep", "workers", "tracking_uri"} <= given.keys():
        raise UserError(f"SWEEP = {name!r}: its journal is not a sweep's")
    recipe = folder / RECIPE
    sweep = load_sweep(sweep_file(folder), given["workers"], given["sweep"], recipe if recipe.is_file() else None)
    opened = Opened(sweep, name, storage, extra_settings(storage, given["tracking_uri"]))
    if start["config_hash"] != digest([opened.sweep.model_dump(mode="json"), opened.base.digest()]):
        raise UserError(f"SWEEP = {name!r}: its file or its recipe has changed since it began; start another")
    return opened


def extra_settings(storage: str, tracking_uri: str | None) -> tuple[str, ...]:
    """What every run of a sweep is told beside its settings."""
    given = {"run.storage": storage, "run.tracking_uri": tracking_uri}
    return tuple(override(key, value) for key, value in given.items() if value is not None)


def sweep_folder(storage: str, name: str) -> Path:
    return Path(storage).absolute() / "sweeps" / name


def sweep_file(folder: Path) -> Path:
    """Raises UserError where it is gone."""
    there = [path for name in FILES if (path := folder / name).is_file()]
    if not there:
        raise UserError(f"SWEEP = {folder.name!r}: {folder} has lost its file, {' or '.join(FILES)}; put it back")
    return there[0]


def runs_of(opened: Opened) -> dict[str, JournalView]:
    """The journals of the sweep's runs, by the run's name."""
    return sweep_runs(opened.storage, opened.name)


def status_of(opened: Opened) -> str:
    """What the sweep's journal says, or "interrupted" where it says running and no driver holds it."""
    path = opened.folder / JOURNAL
    status = read(path).status
    return "interrupted" if status == "running" and not is_held(path) else status


def elapsed_s(journal: Path) -> float:
    """Seconds that drivers have worked on the sweep, up to the journal's last record: pauses are left out."""
    return worked_s(JournalReader(journal).new_records())


def answer_of(opened: Opened, study: optuna.Study, views: dict[str, JournalView]) -> Answer:
    """The answer as it stands, running or not. `views`: `runs_of` the sweep."""
    wall_s = elapsed_s(opened.folder / JOURNAL)
    return answer(opened.sweep, opened.name, study.get_trials(), views, wall_s)


def write_answer(
    opened: Opened, study: optuna.Study | None = None, failed: Callable[[OSError], None] | None = None
) -> tuple[Answer, list[Path]]:
    """The answer as it stands, and the files that show it, each replaced whole.

    `failed`: told where they cannot be written, which then ends nothing. What says the same already stays as it is.
    """
    study, views = study or opened.study(), runs_of(opened)
    known = answer_of(opened, study, views)
    text, path = json.dumps(known.to_json(), indent=2, allow_nan=False), opened.folder / "answer.json"
    try:
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            _draw(opened, known, study, views)
            write_whole(path, text)  # last: it says that the others are of this answer
    except OSError as error:
        if failed is None:
            raise
        failed(error)
    return known, [path for name in ANSWER_FILES if (path := opened.folder / name).is_file()]


def _draw(opened: Opened, known: Answer, study: optuna.Study, views: dict[str, JournalView]) -> None:
    from r2m.reports.importance_picture import importance_picture
    from r2m.reports.sweep_page import picture, sweep_html
    from r2m.reports.sweep_tables import ranking_table

    # Each whole: `sweep status` may be at it beside the driver.
    write_whole(opened.folder / "ranking.json", json.dumps(ranking_table(known)))
    write_whole(opened.folder / "report.html", sweep_html(known, study, views, opened.text))
    with made_whole(opened.folder / "answer.png") as partial:
        picture(known, views, partial)
    with made_whole(opened.folder / "importance.png") as partial:
        importance_picture(known, partial)
