"""Reward modelling, the second stage of RLHF: Bradley-Terry on preference pairs (App. G.1, Eq. 7), and on pairs mixed
across prompts (RRM), by one head or by two (ODIN).

Axes: B pairs (2B sequences: the chosen, then the rejected ones), T tokens.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from r2m.core.masking import pad
from r2m.core.odin import pearson
from r2m.core.reward_loss import bradley_terry, preference_loss
from r2m.errors import UserError, brief
from r2m.models.loading import load_config
from r2m.models.saving import make_savable
from r2m.models.weights import check_weights
from r2m.results.statistics import wilson_interval
from r2m.reward.features import second_moment
from r2m.reward.inputs import response_ids
from r2m.reward.model import RewardModel
from r2m.stages import common
from r2m.stages.augmentation import mixed_pairs
from r2m.stages.progress import Progress, silent
from r2m.stages.two_heads import FEATURES, odin_loss, two_heads
from r2m.tasks.columns import comparable, preference_pairs
from r2m.tasks.prompt import Prompt

SEEN = 0.99  # this quantile of the held-out responses' scores is what the data reached
TokenPair = tuple[list[int], list[int]]  # ids of prompt + response + EOS: chosen, rejected


class Example(NamedTuple):
    """Ids of prompt + response + EOS of two responses, and the chance that the first is preferred."""

    first: list[int]
    second: list[int]
    preference: float
    features: tuple[float, ...]  # of both, where one is named


def train_reward_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[Prompt, str, str]], *,
    epochs: int = 1, batch_size: int = 32, lr: float = 1e-5, seed: int = 0, max_tokens: int | None = None,
    held_out_share: float = 0.1, sft_samples: Sequence[tuple[Prompt, str]] | None = None, rrm: float = 0.0,
    odin: str = "none", features: bool = False, progress: Progress = silent,
) -> dict[str, Any]:  # fmt: skip
    """Minimise Eq. 7 over all weights of a sequence classifier with one label, in place, and centre its scores.

    Args:
        max_tokens: pairs with a longer sequence, prompt included, are left out; and so are those whose two
            sequences are the same tokens, though their texts may differ.
        held_out_share: of the pairs, for the report, never trained on.
        sft_samples: responses of the supervised policy. Their mean score goes into `config.reward_mean`, which
            the loader takes off; without them it is the mean over all responses in the pairs.
        rrm: share of the 14 pairs, mixed across prompts, to each training pair, that are trained on with it (RRM);
            those longer than all of the data's own are left out, and those of twice the same tokens.
        odin: one of FEATURES, which the scores are made to have nothing to do with (ODIN); none: of nothing.

    Returns:
        rows, held_out_rows, left_out (too long), equal (left out, too), steps; held-out loss (nats, before and
        after), accuracy with its 95 % interval, mean margin (reward units); reward_mean, and reward_mean_of: what
        that is the mean of; reward_seen: how high the data's responses score, which is `config.reward_seen`, too.
        With `rrm` also mixed and mixed_left_out, pairs; with `odin` feature_correlation, Pearson's, of the held-out
        responses' scores with the feature; with `features` moment: Σ e eᵀ of the last layer's features over the
        training pairs' responses, [D, D].

    Raises:
        UserError: fewer than two pairs left, one longer than the model's context, or a tokenizer whose padding
            cannot be told from an end token.
    """
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        raise UserError("tokenizer: it has no padding token apart from its end token; see add_padding")

    def encode(prompt: Prompt, first: str, second: str) -> TokenPair:
        return response_ids(tokenizer, prompt, first), response_ids(tokenizer, prompt, second)

    def features_of(*texts: str) -> tuple[float, ...]:
        return tuple(FEATURES[odin](tokenizer, text) for text in texts) if odin != "none" else ()

    encoded = [encode(*pair) for pair in pairs]
    short = [i for i, ids in enumerate(encoded) if max_tokens is None or max(map(len, ids)) <= max_tokens]
    training, apart = trained_on(encoded, short, seed, held_out_share)
    own = sorted([*training, *apart])
    left_out, equal = len(encoded) - len(short), len(short) - len(own)
    kept, held_out = ([encoded[i] for i in some] for some in (own, apart))
    longest = max(len(ids) for pair in kept for ids in pair)
    common.check_lengths(longest, model)
    train = [Example(*encoded[i], 1.0, features_of(*pairs[i][1:])) for i in training]
    mixed = [] if rrm == 0 else mixed_pairs([pairs[i] for i in training], rrm, seed)
    more = (Example(*encode(*m[:3]), m.preference, features_of(m.first, m.second)) for m in mixed)
    train += [e for e in more if max(map(len, e[:2])) <= longest and e.first != e.second]
    pad_id = model.config.pad_token_id = tokenizer.pad_token_id
    total = epochs * -(-len(train) // batch_size)
    before = bradley_terry(*_evaluate(model, _flat(held_out), pad_id, batch_size).chunk(2)).mean()

    # What correlates with a feature is seen in batches of all lengths alone.
    lengths = [len(e.first) + len(e.second) if odin == "none" else 0 for e in train]
    order = common.batches(lengths, batch_size, seed)
    with two_heads(model, seed) if odin != "none" else nullcontext() as heads:
        for _ in common.training(model, lr, total, "reward model", progress):
            batch = [train[i] for i in next(order)]
            scores_2B = _scores(model, _flat([(e.first, e.second) for e in batch]), pad_id)
            both_2B2, scores_2B = scores_2B, scores_2B if heads is None else scores_2B.sum(-1)
            preference_B = torch.tensor([e.preference for e in batch], device=scores_2B.device)
            first_B, second_B = scores_2B.chunk(2)
            loss = preference_loss(first_B, second_B, preference_B).mean()
            if heads is not None:
                feature_2B = torch.tensor([e.features for e in batch], device=scores_2B.device).T.flatten()
                loss = odin_loss(loss, both_2B2, feature_2B, heads)
            loss.backward()

    chosen_B, rejected_B = _evaluate(model, _flat(held_out), pad_id, batch_size).chunk(2)
    centred = _flat(kept) if sft_samples is None else [response_ids(tokenizer, *s) for s in sft_samples]
    reward_mean = float(_evaluate(model, centred, pad_id, batch_size).mean())
    model.config.reward_mean = reward_mean
    seen = float(torch.cat([chosen_B, rejected_B]).quantile(SEEN)) - reward_mean
    model.config.reward_seen = seen
    accuracy = float((chosen_B > rejected_B).float().mean())
    moment: dict[str, Any] = {}
    if features:
        of_pairs = [ids for i in training for ids in encoded[i]]
        moment = {"moment": second_moment(RewardModel(model), of_pairs, pad_id, 2 * batch_size)}
    added = len(train) - len(training)
    more_told: dict[str, Any] = {"mixed": added, "mixed_left_out": len(mixed) - added} if rrm else {}
    if odin != "none":
        feature_2B = torch.tensor([features_of(*pairs[i][1:]) for i in apart], device=chosen_B.device).T.flatten()
        more_told["feature_correlation"] = float(pearson(torch.cat([chosen_B, rejected_B]), feature_2B))
    return more_told | moment | {
        "rows": len(training), "held_out_rows": len(held_out), "left_out": left_out, "equal": equal, "steps": total,
        "loss_before": float(before), "loss": float(bradley_terry(chosen_B, rejected_B).mean()),
        "accuracy": accuracy, "accuracy_interval": list(wilson_interval(accuracy, len(held_out))),
        "margin": float((chosen_B - rejected_B).mean()), "reward_mean": reward_mean, "reward_seen": seen,
        "reward_mean_of": "SFT samples" if sft_samples is not None else "the data's responses",
    }  # fmt: skip


def trained_on(
    encoded: Sequence[Sequence[list[int]]], kept: Sequence[int], seed: int, held_out_share: float = 0.1
) -> tuple[list[int], list[int]]:
    """Of the pairs `kept`, those to train on and those held out. A pair of the same tokens twice prefers nothing.

    Raises UserError as `hold_out`.
    """
    own = [i for i in kept if encoded[i][0] != encoded[i][1]]
    return common.hold_out(own, held_out_share, seed, len(encoded) - len(kept), len(kept) - len(own))


def run_reward_model(model: str, data: str, out: Path, **options: Any) -> dict[str, Any]:
    """`r2m reward-model`: from a language model (usually the supervised one) and prompt/chosen/rejected data to a
    reward model. Options are `run_stage`'s and `train_reward_model`'s."""

    def load(tokenizer: PreTrainedTokenizerBase, seed: int, device: str) -> PreTrainedModel:
        classifier = load_classifier(model, seed, device)
        add_padding(classifier, tokenizer)
        return classifier

    return common.run_stage(
        "reward-model", lambda rows: comparable(preference_pairs(rows)), load, train_reward_model, model, data, out,
        **options,
    )  # fmt: skip


def load_classifier(model: str, seed: int = 0, device: str = "cpu") -> PreTrainedModel:
    """A sequence classifier with one label in fp32; a language model gets a scoring layer drawn from `seed`.

    Raises UserError for a model that cannot be had.
    """
    load_config(model, "model")
    check_weights(model, "model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            classifier: Any = AutoModelForSequenceClassification.from_pretrained(
                model, num_labels=1, dtype=torch.float32, trust_remote_code=False
            )
        except MemoryError:
            raise
        except Exception as error:  # as in r2m.models.loading
            raise UserError(f"model = {model!r}: no sequence classifier can be made of it ({brief(error)})") from None
    make_savable(classifier)
    return classifier.to(device)


def add_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a tokenizer without a padding token apart from its end token a new one, "[PAD]".

    A classifier finds the last token by comparing with the padding: were it the end token, the chosen and the
    rejected response would be cut at their ends and could score alike.
    """
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        tokenizer.add_special_tokens({"pad_token": "[PAD]"})
        embeddings: Any = model.get_input_embeddings()
        if len(tokenizer) > embeddings.num_embeddings:
            model.resize_token_embeddings(len(tokenizer))
    model.config.pad_token_id = tokenizer.pad_token_id


def _flat(pairs: Sequence[TokenPair]) -> list[list[int]]:
    """All chosen, then all rejected."""
    return [chosen for chosen, _ in pairs] + [rejected for _, rejected in pairs]


def _scores(model: PreTrainedModel, sequences: Sequence[list[int]], pad_id: int) -> Tensor:
    ids_BT, mask_BT = (x.to(model.device) for x in pad(sequences, pad_id, "right"))
    return model(input_ids=ids_BT, attention_mask=mask_BT.long(), use_cache=False).logits.squeeze(-1).float()


@torch.no_grad()
def _evaluate(model: PreTrainedModel, sequences: Sequence[list[int]], pad_id: int, batch_size: int) -> Tensor:
    """Scores of all sequences, in their order."""
    model.eval()
    size = 2 * batch_size
    return torch.cat([_scores(model, sequences[i : i + size], pad_id) for i in range(0, len(sequences), size)])
