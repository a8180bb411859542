"""Which parameters separate the best trials from the rest: Optuna's PED-ANOVA, or why it cannot be told."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from r2m.imports import importing

with importing(without=("sklearn",)):  # two seconds, for another evaluator than ours
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

FEWEST = 4  # complete trials


def importance(
    trials: Sequence[FrozenTrial], direction: Literal["maximize", "minimize"]
) -> tuple[dict[str, float], str | None]:
    """Shares of importance for the first objective, most important first, summing to 1, and what to mind.

    {} and the reason where there are fewer than 4 complete trials, no parameter, or nothing to tell apart. "Best" are
    five trials, at most half and at least a tenth of all: PED-ANOVA's own tenth would be one trial of a small sweep.
    """
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    n = len(complete)
    if n < FEWEST:
        return {}, f"{n} complete trial{'s' * (n != 1)}: importance needs at least {FEWEST}"
    if len({t.values[0] for t in complete}) == 1:
        return {}, f"all {n} complete trials have the same value"
    quantile = max(0.1, min(0.5, 5 / n))
    with quiet():
        study = optuna.create_study(direction=direction)
        for t in complete:
            study.add_trial(create_trial(params=t.params, distributions=t.distributions, value=t.values[0]))
        evaluator = PedAnovaImportanceEvaluator(target_quantile=quantile)
        raw = get_param_importances(study, evaluator=evaluator, normalize=False)
    total = sum(raw.values())
    if not total:
        return {}, "no parameter tells the best trials from the rest"
    shares = {name: value / total for name, value in raw.items()}
    sometimes = sorted(p for p in shares if any(p not in t.params for t in complete))
    notes = [f"from {n} trials only: a rough guide"] * (n < 20)
    notes += [f"{', '.join(sometimes)}: not set in every trial"] * bool(sometimes)
    return dict(sorted(shares.items(), key=lambda item: -item[1])), "; ".join(notes) or None


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps Optuna's log lines and warnings off the terminal: what they warn of is said in the answer."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)
