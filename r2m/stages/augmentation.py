"""RRM: preference pairs mixed across prompts, so that a reward model cannot tell them by what no prompt asks for.

Liu et al., 2024, arXiv 2409.13156. To each triplet (prompt i, chosen, rejected) two others, j and k, are drawn. Of
the six responses, read as answers to prompt i, 14 further pairs are made: eight of one of its own two against one of
the other four, which its own wins whatever it is (non-contextual), and six of two of the others, which tie (neutral).
What is the same to every prompt, an artefact, is then on both sides alike.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from r2m.errors import UserError
from r2m.tasks.prompt import Prompt

MIXED = 14  # pairs to each original one


class MixedPair(NamedTuple):
    """Two responses as answers to a prompt, and the chance that the first is preferred: 1, or 1/2 for a tie."""

    prompt: Prompt
    first: str
    second: str
    preference: float


def mixed_pairs(pairs: Sequence[tuple[Prompt, str, str]], share: float, seed: int) -> list[MixedPair]:
    """A random `share` of the 14 pairs to each original one, of which it holds none itself.

    Raises UserError where the pairs have fewer than three prompts.
    """
    rng = random.Random(f"rrm {seed}")
    everything = [mixed for own, *others in _companions(pairs, rng) for mixed in _mixed(own, *others)]
    drawn = rng.sample(range(len(everything)), round(share * len(everything)))
    return [everything[i] for i in sorted(drawn)]


def _mixed(
    own: tuple[Prompt, str, str], j: tuple[Prompt, str, str], k: tuple[Prompt, str, str]
) -> Iterator[MixedPair]:
    prompt, *ours = own
    others = (*j[1:], *k[1:])
    for first in ours:
        for second in others:
            yield MixedPair(prompt, first, second, 1.0)
    for first, second in combinations(others, 2):
        yield MixedPair(prompt, first, second, 0.5)


def _companions(
    pairs: Sequence[tuple[Prompt, str, str]], rng: random.Random
) -> Iterator[tuple[tuple[Prompt, str, str], ...]]:
    """Each pair with two others, all three of different prompts: the next ones that are in a random circle, so that a
    response is drawn about as often as any other."""
    n = len(pairs)
    circle = rng.sample(range(n), n)
    asked = [repr((prompt.text, prompt.messages)) for prompt, *_ in pairs]
    if len(set(asked)) < 3:
        raise UserError(
            f"rrm: pairs are mixed across prompts; the training pairs have {len(set(asked))}, at least 3 are needed"
        )
    for at, i in enumerate(circle):
        trio = [i]
        step = at
        while len(trio) < 3:
            step += 1
            other = circle[step % n]
            if asked[other] not in {asked[one] for one in trio}:
                trio.append(other)
        yield tuple(pairs[one] for one in trio)
