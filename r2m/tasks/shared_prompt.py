"""Where the prompt ends that two plain texts begin with.

Transcripts of "\\n\\nHuman:" and "\\n\\nAssistant:" turns (Anthropic's HH) are split after the last "Assistant:". Of
other texts the shared beginning is cut before its last space, newline or tab, which then begins the answers; where
there is none, or writing without spaces (Chinese, Japanese, Thai ...) follows it, it is cut at the last boundary of
words (UAX 29) in both texts: "2+2=4" and "2+2=5" share "2+2=".
"""

import re

import regex

from r2m.tasks.messages import RowError

DIFFER = "chosen and rejected differ before the last answer"  # reasons that conversations share
UNANSWERED = "its last turn is not the assistant's"

_TURN = re.compile(r"\r?\n\r?\n(Human|Assistant):")
_BEGINS = re.compile(r"\s*(Human|Assistant):")
_SPACELESS = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")
_BOUNDARY = regex.compile(r"\b", regex.WORD)


def split_shared(chosen: str, rejected: str) -> tuple[str, str, str]:
    """(prompt, chosen, rejected): the prompt and either answer together are the text that was given.

    Raises RowError.
    """
    if _BEGINS.match(chosen) and _BEGINS.match(rejected) and _TURN.search(chosen) and _TURN.search(rejected):
        cut = _transcript(chosen, rejected)
    elif chosen == rejected:
        raise RowError("chosen and rejected are one text: no telling where its prompt ends")
    else:
        cut = _words(chosen, rejected)
    if not chosen[:cut].strip():
        raise RowError("without a prompt, chosen and rejected must begin with a shared one")
    return chosen[:cut], chosen[cut:], rejected[cut:]


def _transcript(chosen: str, rejected: str) -> int:
    ends = []
    for transcript in (chosen, rejected):
        *_, last = _TURN.finditer(transcript)
        if last[1] != "Assistant":
            raise RowError(UNANSWERED)
        ends.append(last.end())
    if chosen[: ends[0]] != rejected[: ends[1]]:
        raise RowError(DIFFER)
    return ends[0]


def _words(chosen: str, rejected: str) -> int:
    shared = _shared(chosen, rejected)
    cut = max(chosen.rfind(space, 0, shared) for space in " \n\t")
    if cut > 0 and not _SPACELESS.search(chosen, cut, shared):
        return cut
    for i in range(min(shared, len(chosen) - 1, len(rejected) - 1), max(cut, 0), -1):
        if all(_BOUNDARY.match(text, i) for text in (chosen, rejected)):
            return i
    return max(cut, 0)


def _shared(a: str, b: str) -> int:
    """Characters that both begin with, by bisection: texts are long and many."""
    same, differ = 0, min(len(a), len(b)) + 1  # of `same` characters all agree, of `differ` not
    while differ - same > 1:
        middle = (same + differ) // 2
        same, differ = (middle, differ) if a[same:middle] == b[same:middle] else (same, middle)
    return same
