"""What optuna-dashboard shows of a sweep beside its own plots: the answer as the study's note, and, of every trial
that has ended, a note with its curves and the texts that its reward liked and gold did not.

It reads them where optuna_dashboard.save_note and its artifacts write them: in attributes of the study, which can
still be written when a trial has ended. They are written here, since to import it takes seconds. The pictures lie in
the sweep's folder, which `optuna-dashboard --artifact-dir` is to be given.
"""

import json
import uuid

import optuna

from r2m.errors import UserError
from r2m.files import made_whole
from r2m.reports.sweep_notes import answer_note, trial_note
from r2m.results.answer import Answer, Ranked
from r2m.results.table import Arm, Result
from r2m.results.texts import LIKED, picks, texts_of
from r2m.runs.folder import JOURNAL, run_folder
from r2m.runs.journal import JournalView, find
from r2m.sweeps.sweep import PICTURES, Opened

_SIGNED = "*r2m writes this note anew as long as this line is its last.*"
_LONGEST = 2045  # characters of an attribute, as optuna-dashboard cuts a note


def write_notes(opened: Opened, study: optuna.Study, known: Answer) -> None:
    """Bring the notes up to date with an answer: the trials' are written once, a user's own stay. Raises OSError."""
    there = study._storage.get_study_system_attrs(study._study_id)
    trials = study.get_trials(deepcopy=False)
    for arm in known.ranking:
        if arm.trial is not None and arm.state in ("complete", "pruned", "failed"):
            trial_id = trials[arm.trial]._trial_id
            if f"{_prefix(trial_id)}note_ver" not in there:
                _write(study, trial_id, _of_trial(opened, study, trial_id, known, arm), 1)
    body = f"{answer_note(known)}\n\n{_SIGNED}"
    parts = [key for key in there if key.startswith(f"{_prefix(None)}note_str:")]
    before = "".join(there[f"{_prefix(None)}note_str:{i}"] for i in range(len(parts)))
    if body != before and (not before or before.endswith(_SIGNED)):
        _write(study, None, body, there.get(f"{_prefix(None)}note_ver", 0) + 1)


def _of_trial(opened: Opened, study: optuna.Study, trial_id: int, known: Answer, arm: Ranked) -> str:
    views = [view for run in arm.runs if (view := find(run_folder(opened.storage, run) / JOURNAL))]
    picture = _picture(opened, study, trial_id, arm, views) if views else None
    results = {view.seed: Result(view) for view in views}
    texts = picks(texts_of(Arm(arm.label, arm.label, results)))
    return trial_note(known, arm, picture, texts.get(LIKED, []))


def _picture(opened: Opened, study: optuna.Study, trial_id: int, arm: Ranked, views: list[JournalView]) -> str | None:
    """Draw a trial's curves as its artifact; the address at which optuna-dashboard has it."""
    from r2m.reports.curves import plot
    from r2m.reports.style import groups

    name = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{opened.name}/{arm.name}"))  # the same if it is drawn again
    folder = opened.folder / PICTURES
    folder.mkdir(exist_ok=True)
    try:
        with made_whole(folder / name, folder / f".{name}.png") as aside:
            plot(groups([(arm.in_search, views[0].arm, views)]), aside)
    except UserError:  # it has no round
        return None
    meta = {"artifact_id": name, "filename": "curves.png", "mimetype": "image/png", "encoding": None}
    key = f"dashboard:artifacts:{trial_id}:{name}"
    study._storage.set_study_system_attr(study._study_id, key, json.dumps(meta))
    return f"/artifacts/{study._study_id}/{trial_id}/{name}"


def _write(study: optuna.Study, trial_id: int | None, body: str, version: int) -> None:
    """As optuna_dashboard.save_note."""
    prefix, storage = _prefix(trial_id), study._storage
    parts = [body[start : start + _LONGEST] for start in range(0, len(body), _LONGEST)]
    there = storage.get_study_system_attrs(study._study_id)
    longer = sum(key.startswith(f"{prefix}note_str:") for key in there) - len(parts)
    for i, part in enumerate(parts + [""] * longer):
        storage.set_study_system_attr(study._study_id, f"{prefix}note_str:{i}", part)
    storage.set_study_system_attr(study._study_id, f"{prefix}note_ver", version)


def _prefix(trial_id: int | None) -> str:
    return "dashboard:" if trial_id is None else f"dashboard:{trial_id}:"
