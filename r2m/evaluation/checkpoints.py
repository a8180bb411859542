"""The checkpoints that a run has kept, scored on held-out prompts by a judge that took no part in training."""

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from r2m.config import Config
from r2m.core.feedback_head import FeedbackHead
from r2m.core.schedule import omega
from r2m.errors import UserError
from r2m.evaluation.bench import AssessedPolicy, Bench, device_of, open_bench
from r2m.evaluation.judging import named_judge
from r2m.evaluation.subjects import TEXT_OF, run_with_checkpoints
from r2m.evaluation.win_rate import Judge, win_rate
from r2m.models.loading import load_tokenizer
from r2m.policy.loading import load_policy
from r2m.policy.lora import add_adapters
from r2m.policy.state import restore_module
from r2m.policy.whole import WholePolicy
from r2m.results.checkpoints import CheckpointScores, ScoredCheckpoint, read_scores, scored_alike
from r2m.runs.folder import CHECKPOINTS
from r2m.stages.common import check_new, new_folder
from r2m.stages.forum import reproducible
from r2m.stages.prepare import prepare
from r2m.stages.progress import Progress, silent
from r2m.tasks.prompt import as_judges_read
from r2m.training import checkpoint
from r2m.workers import Workers

Scores = Callable[[Sequence[str]], list[float | None]]  # of a response to each held-out prompt


def score_checkpoints(
    storage: str, name: str, *, prompts: int | None = None, judge: str | None = None, asked: Judge | None = None,
    against: str | None = None, refresh: bool = False, export: Path | None = None,
    refused: Callable[[str], None] = lambda _: None, progress: Progress = silent,
) -> CheckpointScores:  # fmt: skip
    """The table, from the run's folder where that has the same, and written there.

    Args:
        prompts: how many of the held-out ones, from the first on.
        judge: "gold", or a reward model's folder or hub id; not given: gold, else run.judge.
        asked: a language model in its place; it says how often a response wins against `against`, "sft" or
            "reference".
        export: a new folder, for the best one's policy.
        refused: told of each checkpoint that is not whole.

    Raises UserError for a run without checkpoints that can be read, and for a judge that is none or is not outside.
    """
    folder, view, config = run_with_checkpoints(storage, name)
    if export is not None:
        check_new(export)
    by = None if asked is not None else _outside(config, judge)
    what = f"the win rate against {against or 'sft'} by {asked.name}" if asked is not None else str(by)
    there = config.task.held_out if prompts is None else prompts
    table = CheckpointScores(name, view.start["config_hash"], what, there, config.run.eval_seed, [])
    paths = _whole(folder / CHECKPOINTS, table.config_hash, refused)
    if not paths:
        raise UserError(f"RUN = {name!r}: none of its checkpoints is whole and its own")
    known = None if refresh else read_scores(folder)
    if not scored_alike(known, table, list(paths)) or known is None:
        with reproducible(config.run.seed):
            bench = open_bench(config, prompts, progress)
            scores = _by_wins(bench, asked, against or "sft") if asked is not None else _by_scores(bench, str(by))
            for step, policy, head in _policies(bench, paths):
                table.rows.append(_scored(bench, step, policy, head, scores))
                progress("checkpoints", len(table.rows), len(paths))
        known = table
        known.write(folder)
    if export is not None and known.best is not None:
        best = _open(config)
        best.restore_weights(checkpoint.load_checkpoint(paths[known.best.step])[0])
        with new_folder(export) as new:
            best.export(new, load_tokenizer(prepare(config)[0]))
    return known


def _outside(config: Config, judge: str | None) -> str:
    """The judge's name. Raises UserError where there is none, or it is what trained the policy."""
    if judge == "vanilla":
        raise UserError("--judge 'vanilla': it trained the policy, and prefers what it was hacked by; gold, another "
                        "reward model or --judge-url is allowed with --checkpoints")  # fmt: skip
    chosen = judge or ("gold" if config.task.kind == "forum" else config.run.judge)
    if chosen is None:
        raise UserError("--checkpoints: this run's task has no gold program and the run no run.judge; --judge or "
                        "--judge-url is needed")  # fmt: skip
    return chosen


def _whole(folder: Path, config_hash: str, refused: Callable[[str], None]) -> dict[int, Path]:
    """Step -> checkpoint, by step."""
    whole = {}
    for path in reversed(checkpoint.found(folder)):
        try:
            *_, facts = checkpoint.load_checkpoint(path, config_hash)
        except checkpoint.CorruptCheckpointError as error:
            refused(str(error))
        else:
            whole[int(facts["step"])] = path
    return whole


def _open(config: Config) -> WholePolicy:
    """The policy as a run of this configuration begins with it."""
    model = load_policy(prepare(config)[0], config.policy.dtype, device_of(config))
    if config.policy.lora is not None:
        add_adapters(model, config.policy.lora, config.run.seed)
        return WholePolicy(model, None, config.algorithm, Workers())
    return WholePolicy(model, model, config.algorithm, Workers())  # with a reference that nothing reads


def _policies(bench: Bench, paths: dict[int, Path]) -> Iterator[tuple[int, AssessedPolicy, FeedbackHead | None]]:
    """Each checkpoint's policy and head, in the same memory."""
    policy, head = _open(bench.config), copy.deepcopy(bench.first_head)
    for step, path in paths.items():
        tensors, _, _ = checkpoint.load_checkpoint(path)
        policy.restore_weights(tensors)
        if head is not None:
            restore_module("head", head, tensors)
        yield step, AssessedPolicy(policy.model, bench.supervised.tokenizer), head


def _scored(
    bench: Bench, step: int, policy: AssessedPolicy, head: FeedbackHead | None, scores: Scores
) -> ScoredCheckpoint:
    c = bench.config
    queries, t, texts_N1 = bench.write(policy, bench.prompts, 1)
    weight = omega(step, c.algorithm.total_rounds, c.reward.omega_min, c.reward.omega_schedule)
    measured = bench.measure(policy, queries, t, head, kl=True, omega=weight)
    means = (sum(of := measured[f"eval/{key}"]) / len(of) for key in ("proxy", "vanilla", "kl_sequence"))
    return ScoredCheckpoint(step, scores([text for (text,) in texts_N1]), *means)


def _by_scores(bench: Bench, name: str) -> Scores:
    judge, prompts = named_judge(bench, name), [as_judges_read(prompt) for prompt in bench.prompts]

    def scores(texts: Sequence[str]) -> list[float | None]:
        return [None if score != score else float(score) for score in judge.scores(prompts, texts)]

    return scores


def _by_wins(bench: Bench, judge: Judge, against: str) -> Scores:
    assert against in TEXT_OF
    prompts = [as_judges_read(prompt) for prompt in bench.prompts]
    if against == "sft":
        rivals = [text for (text,) in bench.write(bench.supervised, bench.prompts, 1).texts_NK]
    else:
        references = [prompt.reference for prompt in bench.prompts]
        if None in references:
            raise UserError("--against 'reference': not all of this task's held-out prompts have one")
        rivals = [str(text) for text in references]
    return lambda texts: list(win_rate(judge, prompts, texts, rivals).wins_N)
