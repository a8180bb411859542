"""Every family of causal language models that transformers ships is right as a policy, or is refused in one line.

Right: log-probs, hidden states and gradients of the trainer's forward, and the log-probs that the sampler gives,
are those of the model's own plain forward (tests/family_contract.py).
"""

from pathlib import Path

import pytest
import torch
import transformers

from r2m.errors import UserError
from r2m.models.families import cache_use_of, context_of, width_of
from r2m.models.loading import load_config
from r2m.policy.loading import load_policy
from r2m.policy.output import cache_use
from r2m.training.shape import shape_of
from tests.families import tiny
from tests.family_contract import gaps, saved, states
from tests.family_tables import ALL, REFUSED, document, way_expected

DOCUMENT = Path(__file__).parents[2] / "docs" / "families.md"
# The tables are those of transformers 5.19. With others a family may be refused, never wrong.
OTHER_VERSION = not transformers.__version__.startswith("5.19.")
RIGHT = tuple(name for name in ALL if name not in REFUSED)


@pytest.mark.parametrize("name", ALL)
def test_right_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    folder = saved(name, tmp_path)
    message = ""
    try:
        model = load_policy(folder)
    except UserError as error:
        message = str(error)
    if message:
        assert name in REFUSED or OTHER_VERSION, message
        assert message.startswith(f"policy.model = {folder!r}: ")
        assert OTHER_VERSION or REFUSED[name] in message
        assert "\n" not in message
        return
    found = gaps(model, folder)
    assert found.right, found
    assert name not in REFUSED or OTHER_VERSION
    # what a plan says before it is loaded, too
    assert OTHER_VERSION or cache_use(model) is way_expected(name) is cache_use_of(load_config(folder))


@pytest.mark.parametrize("name", RIGHT)
def test_sizes(name: str) -> None:
    """Those that a configuration gives before there are weights are those of the model."""
    model = tiny(name)
    shape = shape_of(model.config)
    with torch.no_grad():
        width = states(model, torch.ones(1, 3, dtype=torch.long)).shape[-1]
        if shape.context is not None:
            states(model, torch.full((1, shape.context), 5))  # no index out of range
    assert shape.width == width == width_of(model.config)
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert shape.context == context_of(model.config)
    assert shape.cache_use is way_expected(name)
    assert shape.kv_values + shape.state_values > 0


@pytest.mark.parametrize("name", RIGHT)
def test_the_zoo_is_alive(name: str) -> None:
    """What stands in the first token is seen in the last one's logits: else everything would pass."""
    model = tiny(name)
    ids_2S = torch.tensor([[5, 7, 8, 9, 10, 11], [6, 7, 8, 9, 10, 11]])
    with torch.no_grad():
        logits_2V = model(input_ids=ids_2S, use_cache=False).logits[:, -1]
    assert (logits_2V[0] - logits_2V[1]).abs().max() > 1e-2
    assert logits_2V.std() > 0.05


@pytest.mark.skipif(OTHER_VERSION, reason="it speaks of transformers 5.19")
def test_the_document_is_made_of_the_tables() -> None:
    assert DOCUMENT.read_text() == document(), "python -m tests.family_tables > docs/families.md"
