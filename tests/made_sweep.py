"""A sweep made by hand: a real sweep file, a real study that is told values, real journals."""

from pathlib import Path
from typing import Any

import optuna
import yaml

from r2m.results.answer import Answer
from r2m.results.table import trial_name
from r2m.runs.journal import Journal, JournalView, read
from r2m.sweeps.answer import answer
from r2m.sweeps.ranking import run_name
from r2m.sweeps.schema import Sweep
from r2m.sweeps.settings import slug
from r2m.sweeps.spec import config_of, load_sweep

STATES = {
    "complete": optuna.trial.TrialState.COMPLETE,
    "pruned": optuna.trial.TrialState.PRUNED,
    "failed": optuna.trial.TrialState.FAIL,
}


class MadeSweep:
    """`tree`: what differs from a sweep over α and Ω with one objective, eval/gold, on 40 trajectories a run."""

    def __init__(self, folder: Path, **tree: Any) -> None:
        self.folder, self.name = folder, "made"
        whole = {
            "recipe": "forum",
            "set": {"algorithm.queries": 2, "algorithm.responses": 4},
            "parameters": {"reward.alpha": {"uniform": [0, 1]}, "reward.omega_min": {"uniform": [0, 0.9]}},
            "objectives": [{"metric": "eval/gold"}],
            "budget": {"trials": 4, "trajectories": 40},
            "confirm": [100, 101, 102],
        } | tree  # fmt: skip
        path = folder / "made.yaml"
        path.write_text(yaml.safe_dump(whole, sort_keys=False))
        self.text = path.read_text()
        self.sweep: Sweep = load_sweep(path)
        self.study = optuna.create_study(directions=[o.direction for o in self.sweep.objectives])
        self.views: dict[str, JournalView] = {}
        self.group: dict[str, str] = {}  # experiment and parent of the runs, for MLflow

    def run(
        self, arm: str, params: dict[str, Any], seed: int, *evaluations: Any, status: str = "finished",
        alarm: int | None = None,
    ) -> str:  # fmt: skip
        """A run whose rounds each end with an evaluation: gold alone, or (gold, KL), or (gold, KL, vanilla). `alarm`:
        the round at which it was raised."""
        name = run_name(self.name, arm, seed)
        config = config_of(self.sweep, params, seed).model_dump(mode="json")
        with Journal(self.folder / "runs" / name / "journal.jsonl") as journal:
            journal.start(
                run_id=name, task="forum", policy="forum-policy", config=config, versions={}, git={},
                config_hash="c", data_hash="d", datasets=[],
                tags={"r2m.sweep": self.name, "r2m.trial": self.label(arm)}, **self.group,
            )  # fmt: skip
            for step, evaluation in enumerate(evaluations, 1):
                values = evaluation if isinstance(evaluation, tuple) else (evaluation,)
                metrics = dict(zip(("eval/gold", "eval/kl_sequence", "eval/vanilla"), values, strict=False))
                training = {
                    "eval/gold": "reward/gold",
                    "eval/kl_sequence": "kl/sequence",
                    "eval/vanilla": "reward/vanilla",
                }
                metrics |= {training[key]: value for key, value in metrics.items()}
                journal.round(step, metrics | {"time/round_s": 2.0, "time/eval_s": 1.0})
            if alarm is not None:
                journal.event("alarm", step=alarm, began=1, checkpoint=None, reason="gold fell", signals={})
            if status != "running":
                reasons = {"failed": "NaN loss", "pruned": "alarm in round 2: judged lower"}
                journal.event(status, **({"reason": reasons[status]} if status in reasons else {}))
        self.views[name] = read(journal.path)
        return name

    def label(self, arm: str) -> str:
        """What the ledger calls it."""
        for trial in self.study.get_trials(deepcopy=False):
            if trial_name(trial.number) == arm:
                return trial.user_attrs.get("baseline", f"trial {trial.number}")
        return next(label for label in self.sweep.baselines if slug(label) == arm)

    def trial(
        self, alpha: float, *evaluations: Any, state: str = "complete", values: Any = None,
        baseline: str | None = None, violation: float | None = None, seed: int = 0, omega: float = 0.5,
        **params: Any,
    ) -> int:  # fmt: skip
        """A trial and its run on seed 0; its values are the last evaluation's if not given."""
        point = {"reward.alpha": alpha, "reward.omega_min": omega} | params
        self.study.enqueue_trial(point, user_attrs={} if baseline is None else {"baseline": baseline})
        trial = self.study.ask()
        self.sweep.suggest(trial)
        status = {"complete": "finished"}.get(state, state)
        self.run(trial_name(trial.number), point, seed, *evaluations, status=status)
        if violation is not None:
            trial.set_constraint("excess", violation)
        if state != "running":
            last = evaluations[-1] if evaluations else ()
            values = values or (last if isinstance(last, tuple) else (last,))[: len(self.sweep.objectives)]
            self.study.tell(trial, list(values) if state == "complete" else None, state=STATES[state])
        return trial.number

    def confirm(self, arm: str, params: dict[str, Any], *values: Any) -> None:
        """Finished runs on as many of the fresh seeds as there are values."""
        for seed, value in zip(self.sweep.confirm, values, strict=False):
            self.run(arm, params, seed, value)

    def answer(self, wall_s: float | None = None) -> Answer:
        return answer(self.sweep, self.name, self.study.get_trials(), self.views, wall_s)
