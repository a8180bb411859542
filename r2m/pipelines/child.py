"""A step, in a process of its own: `python -m r2m.pipelines.child FOLDER`, of the step's run.

It reads task.json there, makes the memo's entry, and writes how far it is on its stdout, a JSON list a line. Exit
codes: 0 the entry is there, 2 the input was wrong, 130 it was asked to stop, else it failed; reason.txt has the line
that says why. It ends with the process that started it, whose end of its stdin it holds.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path

from r2m.errors import UserError, one_line, reason_of
from r2m.files import write_whole
from r2m.pipelines.work import StoppedStepError, Work

TASK, REASON = "task.json", "reason.txt"
INPUT_WRONG, STOPPED = 2, 130


def main(folder: Path) -> int:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    task = json.loads((folder / TASK).read_text(encoding="utf-8"))
    try:
        _make(task)
    except (KeyboardInterrupt, StoppedStepError):
        return STOPPED
    except Exception as error:
        traceback.print_exc()  # into the step's log
        mistake = isinstance(error, UserError)
        write_whole(
            folder / REASON, str(error) if mistake else one_line(f"{type(error).__name__}: {reason_of(error)}")
        )
        return INPUT_WRONG if mistake else 1
    return 0


def _make(task: dict) -> None:
    from r2m.pipelines.kinds import STEP_KINDS
    from r2m.pipelines.memo import Memo, write_entry
    from r2m.pipelines.spec import settings_of

    kind = STEP_KINDS[task["use"]]
    settings = settings_of(kind.settings, task["settings"], f"steps.{task['step']}")
    work = Work(**task["work"], progress=_progress)
    with Memo(work.storage).making(task["entry"]) as made:
        if made is None:  # somebody else has just made it
            return
        folder, kept = made
        began = time.monotonic()
        outputs = kind.run(settings, replace(work, folder=folder, kept=kept))
        write_entry(folder, outputs, kind.outputs, work.made_by, time.monotonic() - began)


def _progress(phase: str, done: int, total: int) -> None:
    print(json.dumps([phase, done, total]), file=sys.__stdout__, flush=True)


def _end_with_parent() -> None:
    """Nothing is ever written there: a read ends when the parent has. (sys.stdin's own lock would be in the way of
    this process's end.)"""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    out = os.dup(1)
    os.dup2(2, 1)  # what libraries print goes into the log
    sys.__stdout__ = os.fdopen(out, "w")  # type: ignore[misc]
    sys.exit(main(Path(sys.argv[1])))
