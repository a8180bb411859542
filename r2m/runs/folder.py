"""A run's folder: its name, and what lies where in it.

`<storage>/runs/<name>` holds journal.jsonl, config.yaml, checkpoints/ and, at the end, policy/ and reward/;
assessment.json once it has been assessed; best_judged.json, the held-out texts that were judged best so far; and
alarm.html where there was an alarm.
"""

import re
from pathlib import Path

from r2m.errors import UserError, shown

JOURNAL, CHECKPOINTS, ASSESSMENT = "journal.jsonl", "checkpoints", "assessment.json"
BEST_JUDGED, ALARM_PAGE = "best_judged.json", "alarm.html"
ANSWER_FILES = ("report.html", "answer.json", "ranking.json", "answer.png", "importance.png")  # of a sweep's folder
DRIVER = ".driver"  # held by the process that runs it, which needn't be the one that writes its journal
STOP_FILE = "stop"  # asks the workers to end after the round in hand, with a checkpoint
PRUNED = "pruned"  # its text where the run is to end for good

LONGEST_NAME, LONGEST_PART = 100, 230  # of what a user names; of a sweep's run, which adds arm and seed


def check_name(option: str, name: str, longest: int = LONGEST_NAME) -> None:
    """Raises UserError for a name that no run, no sweep and no folder of theirs can have."""
    if not is_name(name) or len(name) > longest:
        raise UserError(
            f"{option} {shown(name)}: letters, digits, '_' and, later, '.' and '-' are allowed, {longest} at most"
        )


def is_name(name: str) -> bool:
    return len(name) <= 255 and re.fullmatch(r"\w[\w.-]*", name, re.ASCII) is not None


def run_folder(storage: str, name: str) -> Path:
    return Path(storage).absolute() / "runs" / name


def existing_folder(storage: str, name: str) -> Path:
    """The folder of a run that is there. Raises UserError, which lists the runs that are, for any other."""
    folder = run_folder(storage, name)
    if not is_name(name) or not (folder / JOURNAL).is_file():
        raise none_of_that_name("RUN", name, storage, folder.parent)
    return folder


def none_of_that_name(what: str, name: str, storage: Path | str, *folders: Path) -> UserError:
    """An error that lists the runs or sweeps that are there: those with a journal in `folders`."""
    there = sorted(p.parent.name for folder in folders for p in folder.glob(f"[!.]*/{JOURNAL}"))
    return UserError(f"{what} = {shown(name)}: not in {storage}; there are: {', '.join(there) or 'none'}")
