"""A round of RLOO against the RLOOTrainer of TRL 1.16, by turns in one process.

Same model and reference, prompts, K, token counts, reward function, loss (TRL_RLOO), epochs and optimiser on
either side: sampling, old and reference log-probs, loss, backward, clipping of the gradient, AdamW. TRL's own
training loop runs, with logging, saving, checkpointing of gradients and bf16 off; when it has ended a round
it is this package's turn. The end token is outside the model's vocabulary, so every response is whole.

    python benchmarks/rloo_vs_trl.py
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from side_by_side import PAD, Fixed, llama, llama_config, one_thread, print_table, ratios, spread  # isort: skip

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast, PrinterCallback, TrainerCallback
from transformers.utils import logging
from trl import RLOOConfig, RLOOTrainer

from r2m.algorithm import Round, train
from r2m.config import Algorithm, Reward
from r2m.core.policy_loss import TRL_RLOO
from r2m.core.trajectories import Trajectories
from r2m.policy.loading import load_policy
from r2m.policy.queries import Query
from r2m.policy.whole import WholePolicy
from r2m.reward.reward import VanillaReward
from r2m.tasks.prompt import Prompt, prompt_ids
from r2m.workers import Workers


class Size(NamedTuple):
    vocabulary: int
    hidden: int
    layers: int
    prompt_tokens: int
    goal: float  # the share of TRL's time that is aimed for


SIZES = {
    "64 + 32 tokens, hidden 128, 2 layers, vocabulary 1,024": Size(1024, 128, 2, 64, 0.6),
    "8 + 32 tokens, hidden 256, 4 layers, vocabulary 4,096": Size(4096, 256, 4, 8, 0.8),
}
N, K, R, EPOCHS = 8, 4, 32, 2
BETA, LR = 0.05, 1e-5
WARM_UP, ROUNDS = 2, 11
PHASES = ("sample", "annotate", "policy")


def even_words(completions: Sequence[str], **_: Any) -> list[float]:
    """The reward on either side: the share of words with an even number."""
    return [sum(int(word[1:]) % 2 == 0 for word in text.split()) / R for text in completions]


def word_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    words = {"<pad>": PAD} | {f"w{i}": i for i in range(1, vocabulary)} | {"<eos>": vocabulary}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


class EvenWords:
    """The reward function in the reward model's place: the score itself is the embedding, of width 1."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self.phi = torch.nn.Linear(1, 1, bias=False).requires_grad_(False)
        torch.nn.init.ones_(self.phi.weight)

    def embed(self, queries: Sequence[Query], t: Trajectories) -> torch.Tensor:
        texts = self._tokenizer.batch_decode(t.response_ids_NKR.flatten(0, 1), skip_special_tokens=True)
        return torch.tensor(even_words(texts)).view(*t.ended_NK.shape, 1)


def our_rounds(folder: str, size: Size, texts: Sequence[str]) -> Iterator[Round]:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    policy, reference = load_policy(folder), load_policy(folder).requires_grad_(False)
    queries = [Query(Prompt(text=text), prompt_ids(Prompt(text=text), tokenizer)) for text in texts]
    a = Algorithm(
        queries=N, responses=K, rounds=WARM_UP + ROUNDS, epochs=EPOCHS, microbatch=N * K, temperature=1.0,
        max_response_tokens=R, lr=LR, beta=BETA, **TRL_RLOO,
    )  # fmt: skip
    settings = Reward(feedback=False, no_eos="keep")
    return train(
        WholePolicy(policy, reference, a, Workers()), Fixed(policy, size.vocabulary, a),
        VanillaReward(EvenWords(tokenizer), settings), lambda step: queries[(step - 1) * N : step * N],
        algorithm=a, head=settings,
    )  # fmt: skip


class TimedTrainer(RLOOTrainer):
    """The trainer, with CPU seconds by phase; nothing else is changed."""

    seconds: dict[str, float]

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        started = time.process_time()
        result = super()._generate(*args, **kwargs)
        self.seconds["sample"] = time.process_time() - started
        return result

    def _generate_and_score_completions(self, *args: Any, **kwargs: Any) -> Any:
        started = time.process_time()
        result = super()._generate_and_score_completions(*args, **kwargs)
        self.seconds["annotate"] = time.process_time() - started - self.seconds["sample"]
        return result


class TakeTurns(TrainerCallback):
    """At the end of each of TRL's rounds (one optimiser step an epoch), a round of ours."""

    trainer: TimedTrainer

    def __init__(self, rounds: Iterator[Round]) -> None:
        self.rounds = rounds
        self.theirs: list[dict[str, float]] = []
        self.ours: list[dict[str, float]] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % EPOCHS:
            return
        seconds = self.trainer.seconds | self._stop()
        seconds["policy"] = seconds["round"] - seconds["sample"] - seconds["annotate"]
        self.theirs.append(seconds)
        self._start()
        metrics = next(self.rounds).metrics
        assert metrics["rollout/response_tokens"] == R
        self.ours.append({phase: metrics[f"time/{phase}_s"] for phase in PHASES} | self._stop())
        self._start()

    def _start(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def _stop(self) -> dict[str, float]:
        return {"round": time.process_time() - self._cpu, "wall": time.perf_counter() - self._wall}


def measure(size: Size) -> TakeTurns:
    generator = torch.Generator().manual_seed(0)
    shape = ((WARM_UP + ROUNDS) * N, size.prompt_tokens)
    prompts = torch.randint(1, size.vocabulary, shape, generator=generator)
    texts = [" ".join(f"w{i}" for i in row) for row in prompts.tolist()]
    with tempfile.TemporaryDirectory() as folder:
        llama(llama_config(size.vocabulary, size.hidden, size.layers)).save_pretrained(folder)
        word_tokenizer(size.vocabulary).save_pretrained(folder)
        turns = TakeTurns(our_rounds(folder, size, texts))
        turns.trainer = TimedTrainer(
            model=folder,
            reward_funcs=even_words,
            args=RLOOConfig(
                output_dir=folder, model_init_kwargs={"dtype": "float32"}, use_cpu=True, bf16=False,
                gradient_checkpointing=False, report_to=[], logging_strategy="no", save_strategy="no",
                disable_tqdm=True, shuffle_dataset=False, per_device_train_batch_size=N * K, num_generations=K,
                num_iterations=EPOCHS, max_completion_length=R, temperature=1.0, beta=BETA,
                learning_rate=LR, lr_scheduler_type="constant", max_steps=(WARM_UP + ROUNDS) * EPOCHS,
            ),
            train_dataset=Dataset.from_dict({"prompt": texts}),
            callbacks=[turns],
        )  # fmt: skip
        turns.trainer.remove_callback(PrinterCallback)
        turns.trainer.seconds = {}
        turns.trainer.train()
    return turns


def main() -> None:
    one_thread()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    print(f"{N} prompts x K = {K}, {EPOCHS} epochs; CPU seconds of {ROUNDS} rounds: median (range)")
    for name, size in SIZES.items():
        turns = measure(size)
        columns = [
            [[row[key] for row in side[WARM_UP:]] for side in (turns.theirs, turns.ours)]
            for key in (*PHASES, "round", "wall")
        ]
        print_table(
            (name, "TRL", "R2M's RLOO", "ratio"),
            [
                (label, spread(theirs), spread(ours), spread(ratios(ours, theirs)))
                for label, (theirs, ours) in zip(
                    ("sampling", "log-probs and reward", "training", "**round**", "round, wall time"),
                    columns, strict=True,
                )
            ],
        )  # fmt: skip
        print(f"\nAim: a ratio of at most {size.goal}.")


if __name__ == "__main__":
    main()
