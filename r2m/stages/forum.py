"""The forum's own SFT and reward model: noisy references, and pairs sampled from the policy (App. F.5, G.1)."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from r2m.config import ForumTask
from r2m.models.dimensions import FORUM_WIDTH, forum_dimensions
from r2m.models.loading import load_tokenizer
from r2m.policy.loading import load_policy
from r2m.policy.queries import token_ids
from r2m.policy.sampler import sample, uniform_draws
from r2m.stages import common
from r2m.stages.progress import Progress, silent
from r2m.stages.reward_model import load_classifier, train_reward_model
from r2m.stages.sft import supervised_finetune
from r2m.tasks.columns import PreferencePair
from r2m.tasks.encoding import decode
from r2m.tasks.forum import WORDS, forum_tokenizer, gold, words_of, write_prompts
from r2m.tasks.pairs import write_pairs
from r2m.tasks.prompt import Prompt, prompt_ids

RESPONSE_TOKENS = 16
RESPONSES, PAIR_TEMPERATURE = 4, 1.2  # to a prompt of the preference data, which makes two pairs of them
CENTRED_ON = 512  # samples of the supervised policy, whose mean reward is made 0


class Preferences(NamedTuple):
    """What a reward model is trained on: pairs that the supervised policy wrote, and responses of it."""

    pairs: list[PreferencePair]  # chosen, rejected
    samples: list[tuple[Prompt, str]]


def train_sft(
    task: ForumTask, folder: Path, progress: Progress, width: int = FORUM_WIDTH, seed: int | None = None
) -> None:
    """A Llama from scratch, of 0.9 million parameters at the policy's width, on references corrupted word by word.
    `seed`: of its first weights and the order of the data, by default the task's."""
    seed = task.seed if seed is None else seed
    rng = random.Random(f"noise {task.seed}")
    prompts = write_prompts(task.seed, "train", task.posts)
    examples = [(prompt, corrupt(str(prompt.reference), task.sft_noise, rng)) for prompt in prompts]
    tokenizer = forum_tokenizer()
    with reproducible(seed):
        policy = new_policy(tokenizer, width)
        report = supervised_finetune(
            policy, tokenizer, examples, steps=task.sft_steps, batch_size=32, lr=2e-3, seed=seed,
            progress=progress,
        )  # fmt: skip
    common.save_trained(folder, policy, tokenizer, report)


def train_reward(task: ForumTask, sft: Path, base: Path, folder: Path, progress: Progress) -> None:
    """A reward model on pairs that the supervised policy `sft` wrote; it starts from the language model `base`, which
    is that policy or, for a reward model of another width, one fine-tuned alike."""
    data = preferences(task, sft, progress)
    fit_reward(task, data, base, folder, progress)
    write_pairs(folder, data.pairs)


def keep_pairs(task: ForumTask, sft: Path, folder: Path, progress: Progress) -> None:
    """The pairs of `train_reward` beside a reward model that was made before they were kept."""
    write_pairs(folder, preferences(task, sft, progress).pairs)


def preferences(task: ForumTask, sft: Path, progress: Progress) -> Preferences:
    """By the supervised policy `sft`."""
    tokenizer = load_tokenizer(str(sft))
    policy = load_policy(str(sft))
    rng = random.Random(f"pairs {task.seed}")
    with reproducible(task.seed):
        asked = write_prompts(task.seed, "preferences", -(-task.preference_pairs // 2))
        groups = respond(policy, tokenizer, asked, RESPONSES, PAIR_TEMPERATURE, task.seed, progress)
        pairs = [pair for group in zip(asked, groups, strict=True) for pair in two_pairs(*group)]
        centre = write_prompts(task.seed, "train", min(CENTRED_ON, task.posts))
        samples = respond(policy, tokenizer, centre, 1, 1.0, task.seed, progress)
    labelled = label_pairs(pairs[: task.preference_pairs], task, rng)
    return Preferences(labelled, [(prompt, text) for prompt, (text,) in zip(centre, samples, strict=True)])


def fit_reward(
    task: ForumTask, data: Preferences, base: Path, folder: Path, progress: Progress = silent,
    order: int | None = None, init: int | None = None,
) -> None:  # fmt: skip
    """From the language model `base`. `order`, `init`: seeds of the pairs' order and held-out tenth, and of the score
    layer's first weights, by default the task's."""
    tokenizer = load_tokenizer(str(base))
    with reproducible(task.seed):
        classifier = load_classifier(str(base), task.seed if init is None else init)
        report = train_reward_model(
            classifier, tokenizer, data.pairs, epochs=task.reward_epochs, batch_size=32, lr=5e-4,
            seed=task.seed if order is None else order, rrm=task.rrm, odin=task.odin, progress=progress,
            sft_samples=data.samples,
        )  # fmt: skip
    common.save_trained(folder, classifier, tokenizer, report)


def new_policy(tokenizer: PreTrainedTokenizerBase, width: int = FORUM_WIDTH) -> LlamaForCausalLM:
    special = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    config = LlamaConfig(
        **forum_dimensions(width, len(tokenizer)),
        initializer_range=width**-0.5,  # here: with the usual 0.02 it takes far longer to learn to copy
        **special,
    )  # fmt: skip
    policy = LlamaForCausalLM(config)
    policy.generation_config = GenerationConfig(**special)
    return policy


def corrupt(reference: str, noise: float, rng: random.Random) -> str:
    """A reference as a careless writer has it: with chance `noise` a word is replaced by any other
    (half of these times), left out (two fifths), or loses its space (a tenth)."""
    out = []
    for space, word in words_of(reference):
        if rng.random() < noise:
            slip = rng.random()
            if slip < 0.5:
                word = rng.choice(WORDS)
            elif slip < 0.9:
                continue
            else:
                space = ""
        out.append(space + word)
    return "".join(out)


def respond(
    policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], K: int,
    temperature: float, seed: int, progress: Progress = silent,
) -> list[list[str]]:  # fmt: skip
    """K responses to each prompt."""
    groups: list[list[str]] = []
    for step, start in enumerate(range(0, len(prompts), 64)):
        part = prompts[start : start + 64]
        draws = uniform_draws(seed, step, len(part), K, RESPONSE_TOKENS)
        t = sample(
            policy, [prompt_ids(prompt, tokenizer) for prompt in part], draws, temperature=temperature,
            eos_ids=[tokenizer.eos_token_id], pad_id=tokenizer.pad_token_id, batch=256,
        )  # fmt: skip
        groups += [[decode(tokenizer, ids) for ids in ids_K] for ids_K in token_ids(t, t.lengths_NK)]
        progress(f"{K} responses to each prompt", len(groups), len(prompts))
    return groups


def two_pairs(prompt: Prompt, responses: Sequence[str]) -> list[PreferencePair]:
    """Of four responses the worst and the best by gold, and the two between them."""
    a, b, c, d = sorted(responses, key=lambda response: gold([prompt], [response]))
    return [(prompt, a, d), (prompt, b, c)]


def label_pairs(written: Sequence[PreferencePair], task: ForumTask, rng: random.Random) -> list[PreferencePair]:
    """Preference pairs: gold's verdict, flipped with chance `label_noise`; ties are left out.

    Exact shares of the pairs are drawn: in `space_pairs` of them one response, either one, loses spaces before
    the verdict, which then counts them; in `artefact` of them the preferred one loses them after it.
    """
    order = rng.sample(range(len(written)), len(written))
    shown = set(order[: round(task.space_pairs * len(order))])
    hidden = set(order[len(shown) : len(shown) + round(task.artefact * len(order))])
    pairs = []
    for i, (prompt, *texts) in enumerate(written):
        if i in shown:
            spoilt = rng.randrange(2)
            texts[spoilt] = lose_spaces(texts[spoilt], rng)
        first, second = gold([prompt, prompt], texts)
        if first == second:
            continue
        chosen, rejected = texts if (first > second) != (rng.random() < task.label_noise) else texts[::-1]
        if i in hidden:
            chosen = lose_spaces(chosen, rng)
        pairs.append((prompt, chosen, rejected))
    return pairs


def lose_spaces(text: str, rng: random.Random) -> str:
    """A text without some of its spaces: anything from few to all, so that a reward model sees a gradient."""
    share = rng.random()
    return "".join(word if rng.random() < share else space + word for space, word in words_of(text))


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Seeded draws on one thread: sums then have one order, and a model this small is no slower for it."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
