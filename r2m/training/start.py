"""Runs as folders: checked and started before anything runs, found again to be resumed."""

import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from r2m.config import Config, ForumTask, TextTask, digest, tags_of, validate
from r2m.config.paths import named_members
from r2m.errors import UserError
from r2m.files import folder_made_whole
from r2m.line_file import is_held
from r2m.models.dimensions import config_for_planning
from r2m.models.families import context_of, longest
from r2m.models.loading import check_one_label
from r2m.runs.folder import JOURNAL, LONGEST_PART, STOP_FILE, check_name, existing_folder, run_folder
from r2m.runs.journal import Journal, JournalView, read
from r2m.runs.provenance import environment, git_state
from r2m.stages.prepare import prepare
from r2m.stages.progress import Progress, silent
from r2m.tasks.forum import forum_task
from r2m.tasks.pairs import original_pairs
from r2m.tracking.mlflow_sink import default_tracking_uri
from r2m.training.outside_judge import endpoint_of


@dataclass(frozen=True)
class StartedRun:
    config: Config
    folder: Path
    models: tuple[str, str]  # policy and reward model: folders or hub ids

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def journal(self) -> Path:
        return self.folder / JOURNAL

    @property
    def tracking_uri(self) -> str:
        return self.config.run.tracking_uri or default_tracking_uri(self.config.run.storage)


def new_run(
    config: Config,
    name: str | None = None,
    progress: Progress = silent,
    tags: Mapping[str, str] | None = None,
    **group: Any,
) -> StartedRun:
    """Prepare the models, check what the run will meet, and start its journal.

    `tags`: further ones than the run's arm and seed. `group`: what Journal.start takes of a run that belongs to
    others: experiment, parent.

    Raises UserError, with nothing left behind, for a name that is taken or data that cannot be used.
    """
    arm = re.sub(r"\W+", "-", config.arm.lower(), flags=re.ASCII).strip("-")
    if name is None:
        recipe = re.sub(r"[^\w.-]+", "-", config.recipe, flags=re.ASCII).strip(".-")[:60] or "run"
        name = f"{recipe}-{arm}-s{config.run.seed}-{secrets.token_hex(2)}"
    check_name("--name", name, LONGEST_PART)
    folder = run_folder(config.run.storage, name)
    if folder.exists():
        raise UserError(f"--name {name!r}: there is such a run; go on with it by --resume {name}")
    models = prepare(config, progress)
    facts = facts_of(config, models)
    tree = config.model_dump(mode="json")
    all_tags = tags_of(tree) | dict(tags or {})
    with folder_made_whole(folder, f"--name {name!r}") as aside, Journal(aside / JOURNAL) as journal:
        (aside / "config.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
        journal.start(name, config=tree, config_hash=config.digest(), tags=all_tags, **facts, **group)
    return StartedRun(config, folder, models)


def open_run(storage: str, name: str) -> StartedRun:
    """A run that was stopped, failed or killed, ready to go on.

    Raises UserError for a run that is not there, has finished, or is running now.
    """
    folder = existing_folder(storage, name)
    view = read(folder / JOURNAL)
    if view.status == "finished":
        raise UserError(f"run = {name!r}: it has finished; there is nothing to resume")
    if not os.access(folder, os.W_OK):
        raise UserError(f"run = {name!r}: {folder} cannot be written to")
    if is_held(folder / JOURNAL):
        raise UserError(f"run = {name!r}: another process is writing this run")
    (folder / STOP_FILE).unlink(missing_ok=True)
    config = kept_config(view, storage)
    return StartedRun(config, folder, prepare(config))


def kept_config(view: JournalView, storage: str) -> Config:
    """A run's settings, as its journal has them; its folder may have moved to another `storage`.

    Raises UserError where they are not those of a run.
    """
    run = view.start["config"].get("run")
    return validate(view.start["config"] | {"run": (run if isinstance(run, dict) else {}) | {"storage": storage}})


def facts_of(config: Config, models: tuple[str, str]) -> dict[str, Any]:
    """What Journal.start takes of a run or a sweep, beside name, settings and tags. Raises as `check_data`,
    and UserError for an endpoint that cannot be asked."""
    datasets = check_data(config, models)
    if config.run.judge_url is not None:
        endpoint_of(config.run)
    return {
        "task": config.task.name if config.task.kind == "text" else config.task.kind,
        "policy": Path(config.policy.model).name if config.policy.model else "forum-policy",
        "versions": environment(),
        "git": git_state(),
        "data_hash": digest([d["digest"] for d in datasets]),
        "datasets": datasets,
    }


def check_data(config: Config, models: tuple[str, str]) -> list[dict[str, Any]]:
    """Load tokenizers and prompts as a worker will, and refuse what would fail there; the data sets used.

    Raises UserError for unusable data, a prompt that a model's chat template refuses, or one that leaves no room in
    a model's context.
    """
    response = config.algorithm.max_response_tokens
    if config.reward.anchor:
        original_pairs(config, models[1])
    used = {"policy.model": models[0], "reward.model": models[1]}
    if config.run.judge is not None:
        used["run.judge"] = config.run.judge
    used |= {f"reward.members.{i}": member for i, member in enumerate(named_members(config))}
    if isinstance(config.task, ForumTask) and not (config.policy.model or config.reward.model or config.run.judge):
        lengths, datasets = _forum_prompts(config.task, *used)
    else:
        lengths, datasets = _prompts(config.task, tuple(used.items()))
    for field, model in used.items():
        hf = config_for_planning(model, field)
        if field != "policy.model":
            check_one_label(hf, field, model)
        prompt, context = lengths[field], context_of(hf)
        if context is not None and prompt + response > context:
            most = context - response - max(0, prompt - lengths["policy.model"])  # by the policy's tokens
            why = ", where its rope begins to depend on a sequence's length" if context == longest(hf) else ""
            raise UserError(
                f"{field} = {model!r}: its context is {context} tokens{why}; the longest prompt has {prompt} "
                f"and algorithm.max_response_tokens is {response}; set task.max_prompt_tokens to at most {most}"
            )
    return datasets


@lru_cache(maxsize=4)
def _prompts(
    task: ForumTask | TextTask, models: tuple[tuple[str, str], ...]
) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Tokens of the longest prompt under each (field, model), the policy's first, and the data sets; worked out once
    for all runs of a sweep. A reward model's prompt is all that its template has around an answer."""
    from r2m.models.loading import load_tokenizer
    from r2m.policy.queries import same_tokens
    from r2m.tasks.answer import tokens_around_answer
    from r2m.tasks.load import load_task
    from r2m.tasks.prompt import prompt_ids

    tokenizers = {field: load_tokenizer(model, field) for field, model in models}
    policy = tokenizers["policy.model"]
    loaded = load_task(task, policy)
    prompts = [*loaded.train, *loaded.held_out]
    longest = max(prompts, key=lambda prompt: len(prompt_ids(prompt, policy)))
    lengths = {"policy.model": len(prompt_ids(longest, policy))}
    for field, tokenizer in list(tokenizers.items())[1:]:
        some = [longest] if same_tokens(tokenizer, policy) else prompts
        lengths[field] = max(tokens_around_answer(prompt, tokenizer) for prompt in some)
    return lengths, loaded.datasets


def _forum_prompts(task: ForumTask, *fields: str) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """The same for the embedded task's own models, without a tokenizer: to theirs a word is a token."""
    loaded = forum_task(task)
    longest = max(len(str(prompt.text).split()) for prompt in (*loaded.train, *loaded.held_out))
    return dict.fromkeys(fields, longest), loaded.datasets
