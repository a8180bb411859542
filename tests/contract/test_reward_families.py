"""Every family of sequence classifiers that transformers ships is right as a reward model, or refused in one line.

The oracle is the model's own `logits` of one sequence, without padding.
"""

from pathlib import Path

import pytest
import torch

from r2m.core.masking import pad
from r2m.errors import UserError
from r2m.models.families import context_of
from r2m.models.saving import save_model
from r2m.reward.loading import load_reward_model
from r2m.training.shape import shape_of
from tests.families import CLASSIFIERS, PAD, TOKENS, tiny_classifier, tokenizer
from tests.family_tables import REWARD_REFUSED

LENGTHS = (12, 4, 9)  # tokens: longer than the zoo's sliding windows, and unequal


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_right_or_refused_in_one_line(family: str, tmp_path: Path) -> None:
    model = tiny_classifier(family)
    save_model(tmp_path, model, tokenizer())
    if family in REWARD_REFUSED:
        with pytest.raises(UserError) as error:
            load_reward_model(str(tmp_path))
        message = str(error.value)
        assert message.startswith(f"reward.model = {str(tmp_path)!r}: ")
        assert REWARD_REFUSED[family] in message
        assert "\n" not in message
        return
    reward, head = load_reward_model(str(tmp_path))
    assert head is None
    random = torch.Generator().manual_seed(1)
    rows = [torch.randint(PAD + 1, TOKENS, (length,), generator=random) for length in LENGTHS]
    ids_BT, mask_BT = pad([row.tolist() for row in rows], PAD, "right")
    with torch.no_grad():
        own_B = torch.cat([model(input_ids=row[None]).logits[0] for row in rows])
        torch.testing.assert_close(reward(ids_BT, mask_BT), own_B, rtol=1e-3, atol=1e-3)
    assert own_B.std() > 0.01


@pytest.mark.parametrize("family", [name for name in CLASSIFIERS if name not in REWARD_REFUSED])
def test_sizes(family: str) -> None:
    """Those that a configuration gives before there are weights; a sequence of the whole context can be read."""
    model = tiny_classifier(family)
    shape = shape_of(model.config, "reward.model")
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert shape.context == context_of(model.config)
    if shape.context is not None:
        ids_1S = torch.full((1, shape.context), 5)
        with torch.no_grad():
            assert model(input_ids=ids_1S, attention_mask=torch.ones_like(ids_1S)).logits.isfinite().all()
