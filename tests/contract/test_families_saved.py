"""Families of causal language models come back from a folder as they were trained, and the trial that is made before
a training says so. (Every eighth: of all 175 that are not refused, trial and saving agreed.)"""

import json
from pathlib import Path

import pytest
import torch

from r2m.models.loading import load_tokenizer
from r2m.models.saving import check_savable, save_model
from r2m.policy.loading import load_policy
from tests.family_contract import saved
from tests.family_tables import ALL, REFUSED

SOME = [name for name in ALL if name not in REFUSED][::8]


@pytest.mark.parametrize("name", SOME)
def test_saved_with_a_temperature_and_no_do_sample(name: str, tmp_path: Path) -> None:
    folder = saved(name, tmp_path)
    settings = Path(folder) / "generation_config.json"
    tree = json.loads(settings.read_text()) if settings.exists() else {}
    settings.write_text(json.dumps(tree | {"temperature": 0.6}))
    policy, tokenizer = load_policy(folder), load_tokenizer(folder)
    check_savable(policy, tokenizer, tmp_path, "policy.model")
    with torch.no_grad():
        for p in policy.parameters():
            p += 1e-3  # trained
    save_model(tmp_path / "again", policy, tokenizer)
    again = load_policy(str(tmp_path / "again"))
    pairs = zip(policy.named_parameters(), again.named_parameters(), strict=True)
    assert [name for (name, a), (_, b) in pairs if not torch.equal(a, b)] == []
