"""Supervised fine-tuning, against Hugging Face's own loss."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from made_tokenizers import TEMPLATES, chat_tokenizer
from safetensors.torch import load_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from r2m.errors import UserError
from r2m.models.loading import load_tokenizer
from r2m.policy.loading import load_policy
from r2m.stages.sft import _encode, run_sft, supervised_finetune
from r2m.tasks.prompt import Prompt, prompt_ids

EXAMPLES = [
    (Prompt(text="my mom sold my tv . tl;dr:"), " mom sold tv"),
    (Prompt(text="i feel sad . tl;dr:"), " sad"),
    (Prompt(text="my boss hid my piano . i need help . tl;dr:"), " boss hid my piano , need help"),
    (Prompt(text="i need revenge . tl;dr:"), ""),
]

ROWS = [{"prompt": prompt.text, "completion": completion} for prompt, completion in EXAMPLES]


def labelled_loss(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompt: str, completion: str
) -> tuple[float, int]:
    """Sum of Hugging Face's loss over the completion and its end token, one example at a time; its tokens."""
    asked = tokenizer(prompt)["input_ids"]
    answer = [*tokenizer(completion)["input_ids"], tokenizer.eos_token_id]
    labels = torch.tensor([[-100] * len(asked) + answer])
    with torch.no_grad():
        loss = model(input_ids=torch.tensor([asked + answer]), labels=labels).loss
    return float(loss) * len(answer), len(answer)


def test_held_out_loss_is_that_of_completions_and_their_end_tokens(
    policy: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    # Of four rows three are held out; whichever they are, they are what is not trained on.
    before = {p.text: labelled_loss(policy, tokenizer, str(p.text), c) for p, c in EXAMPLES}
    reports = [
        supervised_finetune(policy, tokenizer, EXAMPLES, steps=1, lr=1e-9, seed=seed, held_out_share=0.75)
        for seed in range(8)
    ]
    expected = [
        sum(loss for text, (loss, _) in before.items() if text != left.text)
        / sum(count for text, (_, count) in before.items() if text != left.text)
        for left, _ in EXAMPLES
    ]
    for report in reports:
        assert min(abs(report["loss_before"] - value) for value in expected) < 1e-5
    assert len({round(report["loss_before"], 4) for report in reports}) > 1


def test_training_learns_completions_and_where_they_end(
    policy: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    twice = [example for example in EXAMPLES[:3] for _ in range(8)]
    report = supervised_finetune(policy, tokenizer, twice, steps=60, batch_size=8, lr=1e-2, held_out_share=0.2)
    assert report["loss"] < 0.1 < report["loss_before"]
    assert report["token_accuracy"] > 0.95
    assert (report["rows"], report["held_out_rows"], report["steps"]) == (19, 5, 60)
    assert not policy.training


def test_of_a_conversation_what_follows_the_header_is_trained_on() -> None:
    """With what the template itself writes in front of the answer, so that the model learns to write it."""
    prompt = Prompt(messages=({"role": "user", "content": "Hi"},))
    for family, written in (("qwen2.5", "Yo"), ("qwen3", "<think>\n\n</think>\n\nYo"), ("mistral", " Yo")):
        tokenizer = chat_tokenizer(TEMPLATES[family])
        ids, asked = _encode(tokenizer, prompt, "Yo")
        assert ids[:asked] == prompt_ids(prompt, tokenizer)
        assert tokenizer.decode(ids[asked:]) == written + "<eos>"


def test_prompts_are_not_trained_on(policy: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    prompts = [("my mom sold my tv .", "my boss hid my tv ."), ("my tv hid my boss .",) * 2]
    losses = []
    for texts in prompts:
        examples = [(Prompt(text=text), " help") for text in texts]
        report = supervised_finetune(policy, tokenizer, examples, steps=30, lr=1e-2)
        losses.append(report["loss"])
        continuation = [labelled_loss(policy, tokenizer, "my", text[2:])[0] for text in texts]
        assert min(continuation) > 10  # nats: nothing was learned of how a prompt goes on
    assert max(losses) < 0.1


def test_epochs_become_steps(policy: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    seen: list[tuple[str, int, int]] = []
    report = supervised_finetune(
        policy, tokenizer, EXAMPLES * 3, epochs=1.5, batch_size=4, held_out_share=0.0,
        progress=lambda *call: seen.append(call),
    )  # fmt: skip
    assert report["steps"] == 4  # of 11 rows 3 batches a pass, 1.5 passes
    assert seen == [("supervised fine-tuning", i, 4) for i in range(1, 5)]


def test_long_examples_are_left_out_and_counted(policy: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    # With the end token the examples have 12, 6, 19 and 6 tokens.
    report = supervised_finetune(policy, tokenizer, EXAMPLES, steps=1, max_tokens=12)
    assert (report["rows"] + report["held_out_rows"], report["left_out"]) == (3, 1)
    with pytest.raises(UserError, match="0 usable rows, 4 longer than max_tokens"):
        supervised_finetune(policy, tokenizer, EXAMPLES, steps=1, max_tokens=5)


def test_an_example_beyond_the_context_is_refused(
    policy: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    examples = [*EXAMPLES, (Prompt(text="mom" + " sad" * 20), " help" * 4)]
    with pytest.raises(UserError, match=r"longest sequence has 26 tokens, the context of .* is 24"):
        supervised_finetune(policy, tokenizer, examples, steps=1)


def test_an_empty_prompt_is_refused(policy: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match="a prompt without a token"):
        supervised_finetune(policy, tokenizer, [*EXAMPLES, (Prompt(text=""), " help")], steps=1)


@pytest.fixture
def data(tmp_path: Path) -> str:
    path = tmp_path / "posts.jsonl"
    rows = [{"prompt": p.text, "completion": completion} for p, completion in EXAMPLES]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_run_sft_saves_what_reloads(policy_folder: str, data: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = run_sft(policy_folder, data, out, epochs=2, lr=1e-3, instruction="i need help .")
    saved = json.loads((out / "report.json").read_text())
    assert saved == report | {"stage": "sft", "model": policy_folder, "data": data}
    assert load_tokenizer(str(out)).eos_token == "[EOS]"
    old, new = load_policy(policy_folder), load_policy(str(out))
    assert new.dtype == torch.float32
    assert not torch.equal(old.get_output_embeddings().weight, new.get_output_embeddings().weight)


@pytest.mark.parametrize(
    ("model", "rows", "message"),
    [
        ("nowhere", None, "model = 'nowhere': "),
        (None, "", "data = .*: no rows"),
        (None, '{"prompt": "mom", "answer": "b"}\n', "no column completion; the data has prompt, answer"),
        (None, '{"prompt": "mom", "completion": " help"}\n', "1 usable rows"),
    ],
)
def test_run_sft_refuses_unusable_input_and_leaves_nothing(
    policy_folder: str, data: str, tmp_path: Path, model: str | None, rows: str | None, message: str
) -> None:
    if rows is not None:
        Path(data).write_text(rows)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=message):
        run_sft(model or policy_folder, data, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_run_sft_keeps_a_folder_that_is_there(policy_folder: str, data: str) -> None:
    with pytest.raises(UserError, match="it exists"):
        run_sft(policy_folder, data, Path(policy_folder))
    load_policy(policy_folder)


def test_run_sft_leaves_out_unusable_rows_and_says_so(policy_folder: str, tmp_path: Path) -> None:
    rows: list[dict[str, str]] = [{"prompt": "mom", "completion": " help"}] * 10 + [{"prompt": "mom"}]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = run_sft(policy_folder, str(data), tmp_path / "out")
    assert report["rows"] + report["held_out_rows"] == 10
    assert report["data_left_out"] == {"it has no completion": {"rows": 1, "first": "line 11"}}
    assert run_sft(policy_folder, str(data), tmp_path / "first", limit=10)["data_left_out"] == {}


def test_run_sft_leaves_out_what_the_template_refuses(policy_folder: str, tmp_path: Path) -> None:
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %} mom"
    (Path(policy_folder) / "chat_template.jinja").write_text(template)
    user, system = {"role": "user", "content": "mom"}, {"role": "system", "content": "s"}
    data = tmp_path / "rows.jsonl"
    rows = [
        {"messages": [*turns, {"role": "assistant", "content": " help"}]}
        for turns in [[user]] * 10 + [[system, user]]
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = run_sft(policy_folder, str(data), tmp_path / "out")
    ((reason, of),) = report["data_left_out"].items()
    assert (reason, of["rows"]) == ("a chat template refuses it", 1)
    assert of["first"].startswith("line 11: ")
    data.write_text("".join(json.dumps(row) + "\n" for row in rows[5:]))
    with pytest.raises(UserError, match=r"^data = '.*', line 6: .*no system turn"):
        run_sft(policy_folder, str(data), tmp_path / "more")
    assert not (tmp_path / "more").exists()


class TestSaving:
    """What would fail after the training fails before it, and a trained model is not thrown away."""

    def run(self, policy_folder: str, tmp_path: Path, steps: list[int] | None = None) -> Path:
        data = tmp_path / "data.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        count = [] if steps is None else steps
        run_sft(policy_folder, str(data), tmp_path / "out", progress=lambda phase, done, total: count.append(done))
        return tmp_path / "out"

    def test_a_model_whose_settings_of_generation_do_not_validate(self, policy_folder: str, tmp_path: Path) -> None:
        """As published ones: a temperature, and no do_sample."""
        path = Path(policy_folder) / "generation_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"temperature": 0.6, "top_p": 0.9}))
        out = self.run(policy_folder, tmp_path)
        settings = json.loads((out / "generation_config.json").read_text())
        assert (settings["temperature"], settings["top_p"], settings["do_sample"]) == (0.6, 0.9, True)
        load_policy(str(out))

    def test_one_that_cannot_be_saved_is_not_trained(
        self, policy_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise ValueError("no such thing")

        monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", refuse)
        steps: list[int] = []
        with pytest.raises(UserError, match=r"^model = '.*': it could not be saved after the training \(no such"):
            self.run(policy_folder, tmp_path, steps)
        assert steps == []
        assert {path.name for path in tmp_path.iterdir()} == {"policy", "data.jsonl"}

    def test_where_saving_fails_after_all_the_weights_are_kept(
        self, policy_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = LlamaForCausalLM.save_pretrained

        def fail_at_the_end(self: LlamaForCausalLM, folder: Path, **options: object) -> None:
            if "state_dict" not in options:
                raise ValueError("no such thing")
            whole(self, folder, **options)

        monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", fail_at_the_end)
        with pytest.raises(UserError, match=r"could not be saved \(no such thing\); its weights are kept: ") as error:
            self.run(policy_folder, tmp_path)
        kept = load_file(str(error.value).rsplit(": ", 1)[1])
        policy = load_policy(policy_folder)
        assert kept.keys() == dict(policy.named_parameters()).keys()
        assert any(not torch.equal(kept[name], p) for name, p in policy.named_parameters())  # trained
        assert not (tmp_path / "out").exists()

    def test_no_room_on_the_disk(self, policy_folder: str, tmp_path: Path, read_only: Any) -> None:
        disk, _ = read_only
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 2**16))
        data = tmp_path / "data.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        with pytest.raises(
            UserError, match=r"^out = .*: the trained model's weights take 0\.\d MiB, and 0\.\d MiB are free$"
        ):
            run_sft(policy_folder, str(data), disk / "out")
        assert {path.name for path in disk.iterdir()} == {"filler"}
