"""Runs made by hand: real journals of the forum recipe, in a storage of their own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r2m.config import load
from r2m.results.table import Result
from r2m.runs.journal import Journal, JournalView, read

EVALUATED = ("eval/gold", "eval/kl_sequence", "eval/vanilla")
TRAINED = ("reward/gold", "kl/sequence", "reward/vanilla")


class MadeRuns:
    def __init__(self, storage: Path) -> None:
        self.storage = storage
        self.views: list[JournalView] = []

    def results(self, assessments: Mapping[str, Any] | None = None) -> list[Result]:
        """`assessments`: by the run's name."""
        return [Result(view, (assessments or {}).get(view.run_id)) for view in self.views]

    def run(
        self, name: str, *evaluations: Sequence[float], settings: Sequence[str] = (), seed: int = 0,
        status: str = "finished", data: str = "d", samples: Mapping[int, list[dict[str, Any]]] | None = None,
        fields: Sequence[str] = EVALUATED, start: Mapping[str, Any] | None = None, alarm: int | None = None,
    ) -> JournalView:  # fmt: skip
        """A run of RLOO if the settings say nothing else. Its rounds each end with an evaluation: gold, KL, vanilla,
        of as many as are given; the round's own gold, KL and vanilla reward are the same. `alarm`: the round
        at which it was raised."""
        config = load("forum", ["reward.feedback=off", *settings, f"run.seed={seed}"]).model_dump(mode="json")
        with Journal(self.storage / "runs" / name / "journal.jsonl") as journal:
            journal.start(
                run_id=name, task="forum", policy="forum-policy", config=config, versions={}, git={},
                config_hash="c", data_hash=data, datasets=[], **(start or {}),
            )  # fmt: skip
            for step, values in enumerate(evaluations, 1):
                metrics = dict(zip(fields, values, strict=False))
                if fields == EVALUATED:
                    metrics |= dict(zip(TRAINED, values, strict=False))
                journal.round(step, metrics | {"time/round_s": 2.0, "time/eval_s": 1.0})
            for step, rows in (samples or {}).items():
                journal.samples(step, rows)
            if alarm is not None:
                journal.event("alarm", step=alarm, began=1, checkpoint=None, reason="gold fell", signals={})
            if status != "running":
                journal.event(status, **({"reason": "NaN loss"} if status == "failed" else {}))
        self.views.append(read(journal.path))
        return self.views[-1]
