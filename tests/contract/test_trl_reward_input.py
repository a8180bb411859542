"""The reward model's input against TRL 1.16: its RewardTrainer's own data, and the templates of families it ships."""

from pathlib import Path

import pytest
import trl
from datasets import Dataset
from made_tokenizers import chat_tokenizer
from transformers import LlamaConfig, LlamaForSequenceClassification
from trl import RewardConfig, RewardTrainer

from r2m.errors import UserError
from r2m.reward.inputs import RewardInput, response_ids
from r2m.tasks.answer import answer_ids
from r2m.tasks.prompt import Prompt

TEMPLATES = {
    path.stem: path.read_text()
    for path in sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
    if not path.stem.endswith("_training")
}
REFUSED = {  # they show contents in parts, as of text and images, alone
    "idefics3": "does not show the text",
    "llava_next": "the chat template of .* refuses it",
    "smolvlm": "does not show the text",
}
ASKED = [{"role": "user", "content": "What is 2+2?"}]
CHOSEN, REJECTED = "It is 4.", "5,\n\nI think"


def trained_on(template: str | None, row: dict, folder: Path) -> tuple[list[int], list[int]]:
    """Ids of chosen and rejected as TRL's trainer makes them of a row."""
    tokenizer = chat_tokenizer(template)
    model = LlamaForSequenceClassification(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1,
            num_attention_heads=1, num_labels=1,
        )
    )  # fmt: skip
    arguments = RewardConfig(output_dir=str(folder), report_to=[], bf16=False, use_cpu=True)
    trainer = RewardTrainer(model, arguments, train_dataset=Dataset.from_list([row]), processing_class=tokenizer)
    (made,) = trainer.train_dataset
    return made["chosen_ids"], made["rejected_ids"]


@pytest.mark.parametrize("family", ["qwen3", "gemma", "phi3", "llama3_1", "deepseek_r1_distill"])
def test_conversations_are_what_trl_trains_on(family: str, tmp_path: Path) -> None:
    answers = {"chosen": CHOSEN, "rejected": REJECTED}
    row = {"prompt": ASKED} | {key: [{"role": "assistant", "content": text}] for key, text in answers.items()}
    tokenizer, prompt = chat_tokenizer(TEMPLATES[family]), Prompt(messages=tuple(ASKED))
    assert trained_on(TEMPLATES[family], row, tmp_path) == (
        response_ids(tokenizer, prompt, CHOSEN),
        response_ids(tokenizer, prompt, REJECTED),
    )


def test_plain_text_is_what_trl_trains_on(tmp_path: Path) -> None:
    tokenizer, prompt = chat_tokenizer(None), Prompt(text="I lost my tv. TL;DR:")
    row = {"prompt": prompt.text, "chosen": " lost tv", "rejected": " tv<eos>"}  # one has its end already
    assert trained_on(None, row, tmp_path) == (
        response_ids(tokenizer, prompt, " lost tv"),
        response_ids(tokenizer, prompt, " tv<eos>"),
    )


@pytest.mark.parametrize("family", TEMPLATES)
def test_scoring_reads_what_training_read(family: str) -> None:
    tokenizer = chat_tokenizer(TEMPLATES[family])
    turns = [*ASKED, {"role": "assistant", "content": CHOSEN}, {"role": "user", "content": "Sure?"}]
    for messages in (ASKED, turns):
        prompt = Prompt(messages=tuple(messages))
        if family in REFUSED:
            with pytest.raises(UserError, match=REFUSED[family]):
                list(RewardInput(tokenizer, tokenizer).ids(prompt, [[1]], [False]))
            continue
        for answer in (CHOSEN, REJECTED):
            expected = tokenizer.apply_chat_template(
                [*messages, {"role": "assistant", "content": answer}], return_dict=False
            )
            assert response_ids(tokenizer, prompt, answer) == expected
            assert expected[1:2] != [tokenizer.bos_token_id]
            ends = [tokenizer.eos_token_id, *(i for i in tokenizer.added_tokens_decoder if i > 258)]
            for body in (answer_ids(tokenizer, prompt, answer), tokenizer(answer)["input_ids"]):
                ended = [[*body, end] for end in ends]
                read = RewardInput(tokenizer, tokenizer).ids(prompt, ended, [True] * len(ended))
                assert list(read) == [expected] * len(ended)
