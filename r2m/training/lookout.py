"""The alarm in a run: worker 0 feeds the rule, asks the judge where that is an endpoint, keeps the best judged texts,
and tells of what the rule says."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from r2m.alarm.evidence import Turn, telling
from r2m.alarm.rule import Watch
from r2m.config import Run
from r2m.files import write_whole
from r2m.runs.folder import ALARM_PAGE, BEST_JUDGED, CHECKPOINTS, PRUNED
from r2m.runs.journal import Journal, read
from r2m.training import checkpoint
from r2m.training.held_out import Evaluation
from r2m.training.outside_judge import SilentError, outside_judgements

JUDGE_FAILED = "judge-failed"  # event


class Lookout:
    """Of a run that goes on after `step`, it knows what the journal has up to there. An alarm is told of once."""

    def __init__(self, run: Run, folder: Path, journal: Journal, step: int) -> None:
        view = read(journal.path)
        self._run, self._folder, self._journal = run, folder, journal
        self._judged: list[float] | None = None  # of the last evaluation
        self._in_vain = 0  # requests in evaluations that came to no judgement: they may cost as much
        self._told_failed = any(event["name"] == JUDGE_FAILED for event in view.events)
        self._watch = Watch(most=run.alarm_judgements)
        self._watch.replay(view.rounds, view.judged, step)
        self._told = view.alarm is not None
        # A run that it has stopped, and that somebody goes on with all the same, is not stopped again.
        self._may_stop = run.on_alarm == "stop" and all(event["name"] != PRUNED for event in view.events)

    @property
    def stop(self) -> str | None:
        """Why the run is to end after this round; None where it isn't."""
        alarm = self._watch.state.alarm
        return f"alarm in round {alarm.step}: {alarm.reason}" if alarm is not None and self._may_stop else None

    def look(self, step: int, metrics: Mapping[str, float], evaluation: Evaluation) -> dict[str, float]:
        """What the rule adds to the round's metrics."""
        if self._run.judge_url is None:
            self._judged = evaluation.judged
            return self._watch.feed(step, metrics, self._judged).metrics
        self._judged = None
        return self._watch.feed(step, metrics, lambda left: self._ask(step, evaluation, left)).metrics

    def _ask(self, step: int, evaluation: Evaluation, left: int) -> list[float] | None:
        """The endpoint's scores; None where they would be too many, or it gave none."""
        if len(evaluation.said) > left - self._in_vain:
            return None
        try:
            self._judged = outside_judgements(self._run, evaluation.said)
        except SilentError as error:
            self._in_vain += error.billed
            if not self._told_failed:
                self._told_failed = True
                self._journal.event(JUDGE_FAILED, step=step, reason=str(error))
        return self._judged

    def tell(self, step: int, evaluation: Evaluation) -> None:
        """Write down what was judged, once the round is in the journal, and the alarm, with its page."""
        if self._judged is None:
            return
        self._journal.event("judged", step=step, scores=self._judged)
        state, best = self._watch.state, self._folder / BEST_JUDGED
        said = [row | {"judged": score} for row, score in zip(evaluation.said, self._judged, strict=True)]
        if state.best == step:
            write_whole(best, json.dumps({"step": step, "said": said}))
        if state.alarm is None or self._told:
            return
        self._told = True
        alarm = asdict(state.alarm)
        steps = [int(path.name.split("-")[1]) for path in checkpoint.found(self._folder / CHECKPOINTS)]
        alarm["checkpoint"] = max((s for s in steps if s <= state.alarm.began), default=None)
        turns: list[Turn] = []
        with suppress(OSError, ValueError):  # not there, or spoilt
            then = json.loads(best.read_text("utf-8"))
            turns = telling(then["said"], said) if then["step"] == state.alarm.began else []
        from r2m.reports.alarm_page import alarm_html  # takes a second, and most runs need none

        with suppress(OSError):  # a full disk: the journal's next line says so
            write_whole(self._folder / ALARM_PAGE, alarm_html(read(self._journal.path), alarm, turns))
        self._journal.event("alarm", **alarm)
