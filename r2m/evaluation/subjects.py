"""What can be assessed, and against what, seen before anything is loaded."""

from pathlib import Path

from r2m.config import Config
from r2m.errors import UserError
from r2m.results.assessment import Assessment, read_assessment
from r2m.runs.folder import CHECKPOINTS, JOURNAL, existing_folder, run_folder
from r2m.runs.journal import JournalView, read
from r2m.training.start import kept_config

TEXT_OF = {"sft": "rival", "reference": "reference"}  # whose responses, and where rows have them


def finished_run(storage: str, name: str) -> tuple[Path, JournalView, Config]:
    """Folder, journal and configuration. Raises UserError for a run that is not there or has not finished."""
    folder = existing_folder(storage, name)
    view = read(folder / JOURNAL)
    if view.status != "finished":
        raise UserError(f"RUN = {name!r}: it is {view.status}; a finished run can be assessed")
    return folder, view, kept_config(view, storage)


def run_with_checkpoints(storage: str, name: str) -> tuple[Path, JournalView, Config]:
    """As `finished_run`, of a run that may be stopped, pruned, failed or running.

    Raises UserError for one that is not there, that has no checkpoint, or whose policy is in parts in them.
    """
    folder = existing_folder(storage, name)
    view = read(folder / JOURNAL)
    config = kept_config(view, storage)
    if not any((folder / CHECKPOINTS).glob("step-*")):
        raise UserError(
            f"RUN = {name!r}: it has no checkpoint; a finished sweep keeps those of baselines and confirmation runs"
        )
    if config.policy.sharding != "none":
        raise UserError(
            f"RUN = {name!r}: policy.sharding = {config.policy.sharding!r}: its checkpoints have the policy in a "
            "part for each worker, which training alone joins; policy/, of the run's end, is whole"
        )
    return folder, view, config


def on_file(folder: Path, view: JournalView) -> Assessment | None:
    """The run's assessment, if there is one, and of the configuration that the run has."""
    found = read_assessment(folder)
    return found if found and found.config_hash == view.start["config_hash"] else None


def is_run(storage: str, name: str) -> bool:
    return (run_folder(storage, name) / JOURNAL).is_file()


def check_rival(name: str, storage: str) -> None:
    """Raises UserError for what is neither "sft" nor "reference", nor a run in the storage, nor a file."""
    if name not in TEXT_OF and not is_run(storage, name) and not Path(name).is_file():
        raise UserError(f"--against {name!r}: sft, reference, a run in {storage} or a model_outputs.json is allowed")
