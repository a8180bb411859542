"""What a reward model reads, in training, scoring, evaluation and judging alike.

A conversation is read whole, as the reward model's own chat template writes it, up to the template's one end;
plain text with its response up to the tokenizer's end token. However a policy ended, the end is the same, and the
last token is the one that is read.

Axes: K responses.
"""

from collections.abc import Iterator, Sequence

from transformers import PreTrainedTokenizerBase

from r2m.tasks.answer import frame, policy_frame, without_special_tokens, written
from r2m.tasks.encoding import decode, encode
from r2m.tasks.prompt import Prompt, conversation, prompt_ids, template_ids


def response_ids(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, response: str) -> list[int]:
    """Ids of a prompt with a response that has ended, given as text, under a reward model's tokenizer.

    Raises UserError for a conversation that the tokenizer's template does not take.
    """
    if prompt.messages is not None:
        return template_ids(conversation(prompt, tokenizer, response), tokenizer)
    ids = prompt_ids(prompt, tokenizer) + encode(tokenizer, response)
    return ids if ids[-1:] == [tokenizer.eos_token_id] else [*ids, tokenizer.eos_token_id]


class RewardInput:
    """The same of responses that a policy has sampled.

    Where the policy's ids mean the same to the reward model, they are passed on as they are, not written anew from
    their text; what is around them is the reward model's. Elsewhere the text is tokenised anew.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, policy_tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer, self._policy_tokenizer = tokenizer, policy_tokenizer
        self._same_ids = policy_tokenizer.get_vocab().items() <= tokenizer.get_vocab().items()
        self._same_template = tokenizer.chat_template == policy_tokenizer.chat_template

    def ids(self, prompt: Prompt, responses_K: Sequence[list[int]], ended_K: Sequence[bool]) -> Iterator[list[int]]:
        """The reward model's ids of each response. One that has not ended is read without the end.

        Raises UserError as `response_ids` does.
        """
        bodies_K = [ids[:-1] if ended else ids for ids, ended in zip(responses_K, ended_K, strict=True)]
        if prompt.messages is not None:
            yield from self._conversations(prompt, bodies_K, ended_K)
            return
        asked, end = prompt_ids(prompt, self._tokenizer), [self._tokenizer.eos_token_id]
        for body, ended in zip(bodies_K, ended_K, strict=True):
            own = body if self._same_ids else encode(self._tokenizer, decode(self._policy_tokenizer, body))
            yield asked + own + end * ended

    def _conversations(
        self, prompt: Prompt, bodies_K: Sequence[list[int]], ended_K: Sequence[bool]
    ) -> Iterator[list[int]]:
        tokenizer = self._tokenizer
        f = frame(prompt, tokenizer)
        asked = f if self._same_template else policy_frame(prompt, self._policy_tokenizer)
        heads = {text: template_ids(text, tokenizer) for text in (f.asked, f.before)} if self._same_ids else {}
        for body, ended in zip(bodies_K, ended_K, strict=True):
            said = decode(self._policy_tokenizer, body)
            text = conversation(prompt, tokenizer, written(asked, said, self._policy_tokenizer))
            text, after = (text, f.after) if ended else (text.removesuffix(f.after), "")
            tail = encode(tokenizer, after)
            for before, head in heads.items():
                middle = text.removeprefix(before).removesuffix(after)
                if before + middle + after != text or without_special_tokens(middle, tokenizer) != said:
                    continue
                # Where a token reaches over a border ("▁" and a word, a full stop and newlines), it is as the
                # reward model was trained: from the text.
                own = encode(tokenizer, middle + after)
                clean = self._same_template or template_ids(text, tokenizer)[: len(head)] == head
                if clean and own[len(own) - len(tail) :] == tail:
                    yield head + body + tail
                    break
            else:
                yield template_ids(text, tokenizer)
