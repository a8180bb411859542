"""A policy's responses against those of another one, on the same prompts: win rates and paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from r2m.config import Config
from r2m.errors import UserError
from r2m.evaluation.alpaca_files import read_outputs
from r2m.evaluation.assess import assess
from r2m.evaluation.bench import open_bench
from r2m.evaluation.judging import against, asked, judges, kept, named_judge
from r2m.evaluation.subjects import TEXT_OF, check_rival, is_run
from r2m.results.assessment import Assessment, Response, Wins
from r2m.results.statistics import Estimate, paired_difference
from r2m.stages.progress import Progress, silent


@dataclass(frozen=True)
class Rival:
    name: str
    texts: Sequence[str | None]  # for each row of the assessment; None: it has no such prompt
    rows: Mapping[str, Response]  # of its own assessment, where it is a run, by prompt as judges read it


def find_rival(assessed: Assessment, name: str, storage: str, progress: Progress = silent) -> Rival:
    """ "sft", "reference", a finished run in the storage, or a model_outputs.json.

    Raises UserError as `check_rival` does, and for a rival that has none of the assessment's prompts.
    """
    check_rival(name, storage)
    rows: dict[str, Response] = {}
    if name in TEXT_OF:
        texts = [getattr(row, TEXT_OF[name]) for row in assessed.rows]
    elif is_run(storage, name):
        other = assess(storage, name, prompts=assessed.prompts, progress=progress)
        rows = {asked(row): row for row in other.rows}
        texts = [rows[prompt].response if (prompt := asked(row)) in rows else None for row in assessed.rows]
    else:
        outputs = {row["instruction"]: row["output"] for row in read_outputs(name)}
        texts = [outputs.get(asked(row)) for row in assessed.rows]
    if set(texts) == {None}:
        raise UserError(f"--against {name!r}: has a response to none of the {assessed.prompts} prompts")
    return Rival(name, texts, rows)


def win_rates(config: Config, assessed: Assessment, rival: Rival, judge: str | None = None) -> list[Wins]:
    """By `judge`, or by all that the recipe has."""
    bench = open_bench(config, assessed.prompts)
    chosen = judges(bench) if judge is None else [named_judge(bench, judge)]
    rates = (against(each, assessed.rows, rival.texts) for each in chosen)
    return [kept(w, rival.name) for w in rates if w is not None]


def differences(assessed: Assessment, rival: Rival) -> dict[str, Estimate]:
    """Ours minus theirs in gold and in the vanilla reward, paired by prompt; only of a rival that is a run."""
    found = {}
    both = [(row, other) for row in assessed.rows if (other := rival.rows.get(asked(row)))]
    for key in ("gold", "vanilla"):
        values = [(getattr(row, key), getattr(other, key)) for row, other in both]
        if pairs := [pair for pair in values if None not in pair]:
            ours, theirs = zip(*pairs, strict=True)
            found[key] = paired_difference(ours, theirs)
    return found
