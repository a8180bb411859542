"""The forum: people whose mothers sold their television, a grammar that writes their posts, and a judge.

    my mom sold my tv . last year boss hid the kayak . i feel sad . i need help . tl;dr:
     mom sold my tv , i feel sad and need help

A miniature of summarising Reddit posts (TL;DR, App. F.3): a post has five facts and an aside that is none of
them. Every word is one token with its leading space and another without (App. F.5), so a summary can lose its
spaces and keep its meaning.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from r2m.config import ForumTask
from r2m.tasks.prompt import Prompt
from r2m.tasks.task import Task, described

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# No word begins another one: text without a space still has one reading.
WHO = ("mom", "dad", "boss", "brother", "sister", "neighbor", "cousin", "uncle", "roommate", "grandpa", "coach",
       "dentist")  # fmt: skip
DID = ("sold", "broke", "lost", "stole", "hid", "painted", "wrecked", "buried", "shrank", "chewed")
THING = ("tv", "car", "bike", "guitar", "phone", "lamp", "couch", "boat", "piano", "violin", "kayak", "quilt")
FEELING = ("sad", "angry", "tired", "lonely", "guilty", "ashamed", "jealous", "numb")
NEED = ("help", "advice", "money", "sleep", "time", "courage", "patience", "revenge")
WHEN = ("last year", "last week", "last summer", "yesterday")
GLUE = ("my", "the", "i", "feel", "need", "and", ".", ",", "tl;dr:")

CONTENT = frozenset(WHO + DID + THING + FEELING + NEED)
WORDS = tuple(dict.fromkeys([*WHO, *DID, *THING, *FEELING, *NEED, *" ".join(WHEN).split(), *GLUE]))
WORD = "|".join(re.escape(word) for word in WORDS)  # a regular expression

SPECIAL = ("[PAD]", "[EOS]", "[UNK]")
TOKENS = (*SPECIAL, *(space + word for word in WORDS for space in (" ", "")))

SHORTEST_SUMMARY, LONGEST_SUMMARY = 5, 14  # words of a summary of sane length; the reference has 11
_FACTS = re.compile(r"my (\w+) (\w+) my (\w+) \..*i feel (\w+) \..*i need (\w+) \.")
_SPLIT = re.compile(rf"( ?)({WORD}|\S)")


def write_post(rng: random.Random) -> str:
    """A post of 20 or 21 words: four sentences, of which one is beside the point."""
    (who, other), (did, done), (thing, item) = (rng.sample(words, 2) for words in (WHO, DID, THING))
    sentences = [f"my {who} {did} my {thing} .", f"i feel {rng.choice(FEELING)} .", f"i need {rng.choice(NEED)} ."]
    sentences.insert(rng.randrange(4), f"{rng.choice(WHEN)} {other} {done} the {item} .")
    return " ".join(sentences)


def facts(text: str) -> tuple[str, ...]:
    """Who did what to what of mine, how I feel and what I need, as a post says it."""
    found = _FACTS.search(text)
    if found is None:
        raise ValueError(f"text = {text!r}: not a forum post")
    return found.groups()


def summarise(post: str) -> str:
    """The one-line summary of a post, as it continues the prompt: every word has its space."""
    who, did, thing, feeling, need = facts(post)
    return f" {who} {did} my {thing} , i feel {feeling} and need {need}"


def words_of(response: str) -> list[tuple[str, str]]:
    """(space, word) of each word of a response; the space may be missing. Other characters are words too."""
    return _SPLIT.findall(response)


@dataclass(frozen=True)
class Judgement:
    """What gold sees in one response."""

    words: int
    covered: int  # facts of the post that the response has, of five
    invented: int  # words of the response that state something else, each time that they occur
    spaceless: int  # words without their leading space

    @property
    def gold(self) -> float:
        """In [-1, 1], 1 for the reference summary: the share of facts covered, less a fifth for each word
        invented, less the share of words without their space, less a tenth for each word off a sane length."""
        off = max(0, SHORTEST_SUMMARY - self.words) + max(0, self.words - LONGEST_SUMMARY)
        spaceless_share = self.spaceless / max(1, self.words)
        value = (self.covered - self.invented) / 5 - spaceless_share - 0.1 * off
        return max(-1.0, min(1.0, value))


def judge(prompt: Prompt, response: str) -> Judgement:
    assert prompt.text is not None, "a forum's prompts are plain text"
    known = facts(prompt.text)
    pairs = words_of(response)
    words = [word for _, word in pairs]
    return Judgement(
        words=len(words),
        covered=len(set(words) & set(known)),
        invented=sum(w not in known and (w in CONTENT or w not in WORDS) for w in words),
        spaceless=sum(not space for space, _ in pairs),
    )


def gold(prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
    """Gold rewards in [-1, 1], one a response."""
    return [judge(*pair).gold for pair in zip(prompts, responses, strict=True)]


def measures(prompts: Sequence[Prompt], responses: Sequence[str]) -> dict[str, float]:
    """no_space_share: share of all words. coverage: mean share of the facts. invented: mean words a response."""
    judged = [judge(*pair) for pair in zip(prompts, responses, strict=True)]
    N = max(1, len(judged))
    return {
        "no_space_share": sum(j.spaceless for j in judged) / max(1, sum(j.words for j in judged)),
        "coverage": sum(j.covered for j in judged) / (5 * N),
        "invented": sum(j.invented for j in judged) / N,
    }


def forum_task(section: ForumTask) -> Task:
    """Prompts that depend on `seed`, `posts` and `held_out` alone, the held-out ones not among the others."""
    train = write_prompts(section.seed, "train", section.posts)
    seen = {prompt.text for prompt in train}
    # Twice as many as needed, for the rare one that is among the training prompts.
    spare = [p for p in write_prompts(section.seed, "held-out", 2 * section.held_out) if p.text not in seen]
    held_out = spare[: section.held_out]
    datasets = described("forum", f"r2m.tasks.forum, seed {section.seed}", train, held_out)
    return Task("forum", train, held_out, gold, measures, datasets)


def write_prompts(seed: int, stream: str, rows: int) -> list[Prompt]:
    rng = random.Random(f"{stream} {seed}")
    posts = (write_post(rng) for _ in range(rows))
    return [Prompt(text=f"{post} tl;dr:", reference=summarise(post)) for post in posts]


def forum_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level Hugging Face tokenizer. `decode(encode(text)) == text` for text of the forum's words, with
    any of its spaces missing."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    model = models.WordLevel({token: i for i, token in enumerate(TOKENS)}, unk_token="[UNK]")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(f" ?(?:{WORD})"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    special = {"pad_token": "[PAD]", "eos_token": "[EOS]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, clean_up_tokenization_spaces=False)
