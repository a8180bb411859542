"""Assesses a finished run, or a model under a recipe, on held-out prompts.

Made are one response to each prompt with its scores, win rates against the supervised policy and the references, the
reward model's accuracy (Table 3) and the similarity of hidden states (Table 1, Fig. 1); see r2m.results.assessment.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from r2m.config import Config
from r2m.core.feedback_head import FeedbackHead
from r2m.errors import UserError
from r2m.evaluation.bench import AssessedPolicy, Bench, open_bench, open_policy, shown_prompt
from r2m.evaluation.judging import against, judges, kept
from r2m.evaluation.pairs import file_pairs, reward_accuracy
from r2m.evaluation.similarity import similarity, states_over_training
from r2m.evaluation.subjects import TEXT_OF, finished_run, on_file
from r2m.models.loading import load_config
from r2m.results.assessment import VERSION, Assessment, Response
from r2m.reward.loading import load_feedback_head
from r2m.runs.folder import CHECKPOINTS
from r2m.stages.forum import reproducible
from r2m.stages.progress import Progress, silent


def assess(
    storage: str, name: str, *, prompts: int | None = None, pairs: str | None = None, judge: str | None = None,
    refresh: bool = False, progress: Progress = silent,
) -> Assessment:  # fmt: skip
    """The assessment of a finished run, from its file where that has the same prompts and no more is asked for.

    `prompts`: how many of the held-out ones, from the first on. `pairs`: a file of preference pairs, whose accuracy
    is added. `judge`: a reward model whose win rates are added. `refresh`: do not read the file. A file of more
    prompts stays as it is.

    Raises UserError for a run that is not there, has not finished or whose models are gone, and for unusable options.
    """
    folder, view, config = finished_run(storage, name)
    if not refresh and pairs is None and judge in (None, "gold", "vanilla"):
        there = on_file(folder, view)
        if there and there.prompts == (config.task.held_out if prompts is None else prompts):
            return there
    if not (folder / "policy").is_dir():
        raise UserError(
            f"RUN = {name!r}: its models are gone; in a sweep, baselines and confirmation runs keep theirs"
        )
    with reproducible(config.run.seed):
        bench = open_bench(config, prompts, progress)
        trained = open_policy(config, folder / "policy")
        head = load_feedback_head(folder / "reward") if config.reward.feedback else None
        known = _assessed(bench, name, view.start["config_hash"], trained, head, None, pairs, judge, progress)
        followed = states_over_training(bench, trained, folder / CHECKPOINTS, progress)
    known = replace(known, over_training=followed).finite()
    there = on_file(folder, view)
    if there is None or there.prompts <= known.prompts:
        known.write(folder)
    return known


def assess_policy(
    config: Config, model: str | Path, *, prompts: int | None = None, max_tokens: int | None = None,
    pairs: str | None = None, judge: str | None = None, progress: Progress = silent,
) -> Assessment:  # fmt: skip
    """The same of any policy under a recipe, without feedback and what needs a run; nothing is written.

    `model`: a folder or a hub id. `max_tokens`: where its responses, and the supervised policy's, are cut.

    Raises UserError for a model that cannot be had, and for unusable options.
    """
    if max_tokens is not None and max_tokens < 1:
        raise UserError(f"--max-tokens {max_tokens}: at least 1 is allowed")
    load_config(str(model), "MODEL")  # before anything is trained for the recipe
    with reproducible(config.run.seed):
        bench = open_bench(config, prompts, progress)
        policy = open_policy(config, model)
        known = _assessed(bench, None, config.digest(), policy, None, max_tokens, pairs, judge, progress)
    return known.finite()


def _assessed(
    bench: Bench, run: str | None, config_hash: str, policy: AssessedPolicy, head: FeedbackHead | None,
    max_tokens: int | None, pairs: str | None, judge: str | None, progress: Progress,
) -> Assessment:  # fmt: skip
    """All but over-training."""
    asked, extra = judges(bench, judge), file_pairs(bench, policy, pairs)  # first: they may not be there
    rows = _rows(bench, policy, head, max_tokens, progress)
    rates, done = [], 0
    for each in asked:
        for rival, text in TEXT_OF.items():
            found = against(each, rows, [getattr(row, text) for row in rows])
            rates += [] if found is None else [kept(found, rival)]
            progress("win rates", done := done + 1, len(asked) * len(TEXT_OF))
    bar = _mean(rows, "rival_gold")
    c = bench.config
    return Assessment(
        VERSION, run, c.arm, c.run.seed, config_hash, len(bench.prompts), c.run.eval_seed, rows, _means(bench, rows),
        rates,
        reward_accuracy(bench, policy, head, extra, progress),
        similarity(bench, policy, math.nan if bar is None else bar, progress),
        over_training=None,
    )  # fmt: skip


def _rows(
    bench: Bench, policy: AssessedPolicy, head: FeedbackHead | None, max_tokens: int | None, progress: Progress
) -> list[Response]:
    columns: dict[str, Sequence[Any]] = {"prompt": [shown_prompt(p) for p in bench.prompts]}
    sources = ("response", "", policy), ("rival", "rival_", bench.supervised)
    for done, (text, prefix, writer) in enumerate(sources, 1):
        queries, t, texts_N1 = bench.write(writer, bench.prompts, 1, max_tokens)
        ours = writer is policy
        measured = bench.measure(writer, queries, t, head if ours else None, kl=ours)
        columns[text] = [text for (text,) in texts_N1]
        columns[f"{prefix}gold"] = _gold(bench, columns[text])
        columns[f"{prefix}vanilla"] = measured["eval/vanilla"]
        if ours:
            columns["proxy"] = measured["eval/proxy"]
            columns["kl"] = measured.get("eval/kl_sequence", [None] * len(queries))
            columns["tokens"] = t.lengths_NK.flatten().tolist()
            columns["ended"] = t.ended_NK.flatten().tolist()
        progress("responses", done, 2)
    columns["reference"] = [p.reference for p in bench.prompts]
    columns["reference_gold"] = _gold(bench, columns["reference"])
    rows = zip(*columns.values(), strict=True)
    return [Response(**dict(zip(columns, row, strict=True))) for row in rows]


def _gold(bench: Bench, texts: Sequence[str | None]) -> list[float | None]:
    """Gold of a response to each prompt; None where there is no response, or no gold."""
    if bench.gold is None:
        return [None] * len(texts)
    there = [(prompt, text) for prompt, text in zip(bench.prompts, texts, strict=True) if text is not None]
    found = iter(bench.gold([prompt for prompt, _ in there], [text for _, text in there]))
    return [None if text is None else next(found) for text in texts]


def _means(bench: Bench, rows: Sequence[Response]) -> dict[str, float | None]:
    means = {key: _mean(rows, key) for key in ("gold", "vanilla", "proxy", "kl", "tokens")}
    texts = [row.response for row in rows]
    own = {} if bench.measures is None else bench.measures(bench.prompts, texts)
    return {**means, "characters": sum(map(len, texts)) / len(texts), **own}


def _mean(rows: Sequence[Response], key: str) -> float | None:
    """None where the rows have none."""
    values = [getattr(row, key) for row in rows]
    return None if values[0] is None else sum(values) / len(values)
