"""A run's policy against a champion's, on the same held-out prompts, by a judge that took no part in training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from r2m.config import Config
from r2m.endpoint.judge_prompts import TEMPLATES
from r2m.evaluation.assess import assess
from r2m.evaluation.bench import Bench, open_bench, open_policy
from r2m.evaluation.endpoint_judge import Cap, EndpointJudge
from r2m.evaluation.judging import against, kept, named_judge
from r2m.evaluation.subjects import finished_run, on_file
from r2m.evaluation.verdicts import VerdictStore
from r2m.evaluation.win_rate import Judge
from r2m.results.assessment import Wins
from r2m.stages.forum import reproducible
from r2m.stages.progress import Progress, silent
from r2m.training.outside_judge import endpoint_of

CALLS_A_PROMPT = 4  # at most, of a judge behind an address: both orders, each of them twice


def rate_against(
    storage: str, run: str, folder: Path, name: str, verdicts: Path, progress: Progress = silent
) -> Wins | None:
    """The win rate of a finished run over the policy in `folder`, called `name`: by gold where the task has it, else
    by run.judge or run.judge_url, whose verdicts go to a file. None where there is none of these: the vanilla reward
    model, which is what training maximised, does not judge.

    Raises UserError as `assess`, for a folder that holds no policy, and where a judge behind an address is silent.
    """
    run_dir, view, config = finished_run(storage, run)
    there = on_file(run_dir, view)
    assessed = assess(storage, run, prompts=there.prompts if there else None, progress=progress)
    with reproducible(config.run.seed):
        bench = open_bench(config, assessed.prompts, progress)
        with _judge(config, bench, verdicts) as judge:
            if judge is None:
                return None
            _, _, texts_N1 = bench.write(open_policy(config, folder), bench.prompts, 1)
            rate = against(judge, assessed.rows, [text for (text,) in texts_N1])
    assert rate is not None, "the champion has written a response to each prompt"
    return kept(rate, name)


@contextmanager
def _judge(config: Config, bench: Bench, verdicts: Path) -> Iterator[Judge | None]:
    if bench.gold is not None:
        yield named_judge(bench, "gold")
    elif config.run.judge_url is not None:
        with VerdictStore(verdicts) as store:
            cap = Cap(max_calls=CALLS_A_PROMPT * len(bench.prompts))
            yield EndpointJudge(endpoint_of(config.run), TEMPLATES["general"], store, cap)
    else:
        yield None if config.run.judge is None else named_judge(bench, config.run.judge)
