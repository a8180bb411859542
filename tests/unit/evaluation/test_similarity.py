"""Similarities of hidden states: by hand, against a double loop, and of models one sequence at a time."""

import math
import shutil
from dataclasses import astuple
from pathlib import Path

import pytest
import torch

from r2m.config import Config
from r2m.evaluation.bench import AssessedPolicy, Bench, open_bench, open_policy
from r2m.evaluation.similarity import by_kind, cosines, kind, mean_token, similarity, states_over_training, vectors
from r2m.policy.loading import load_policy
from r2m.reward.inputs import response_ids
from r2m.tasks.prompt import Prompt


def slow_cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    products = [sum(float(x) * float(y) for x, y in zip(u, v, strict=True)) for u, v in ((a, b), (a, a), (b, b))]
    return products[0] / math.sqrt(products[1] * products[2])


def test_by_hand() -> None:
    hacking_HD = torch.tensor([[1.0, 0.0], [0.0, 2.0]])  # at right angles
    normal_ND = torch.tensor([[-3.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])  # the same direction
    found = by_kind(hacking_HD, normal_ND)
    assert found.hacking == pytest.approx(0)
    assert found.normal == pytest.approx(1)
    assert found.cross == pytest.approx(-0.5)  # -1 for the first, 0 for the second


def test_against_a_double_loop() -> None:
    draws = torch.Generator().manual_seed(0)
    h, n = torch.randn(5, 7, generator=draws), torch.randn(4, 7, generator=draws)
    within = [[slow_cosine(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j] for x in (h, n)]
    across = [slow_cosine(a, b) for a in h for b in n]
    expected = [sum(values) / len(values) for values in (*within, across)]
    assert list(astuple(by_kind(h, n))) == pytest.approx(expected, abs=1e-9)


def test_one_of_a_kind_has_no_pair() -> None:
    with pytest.raises(ValueError, match="1 hacking and 2 normal"):
        by_kind(torch.ones(1, 2), torch.ones(2, 2))


def test_the_mean_is_over_tokens_alone() -> None:
    hidden_BTD = torch.tensor([[[9.0, 9.0], [1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 7.0], [7.0, 7.0]]])
    mask_BT = torch.tensor([[False, True, True], [True, False, False]])
    assert mean_token(hidden_BTD, mask_BT).tolist() == [[2.0, 3.0], [5.0, 6.0]]
    assert mean_token(hidden_BTD, torch.zeros(2, 3, dtype=torch.bool)).tolist() == [[0, 0], [0, 0]]


def test_a_vector_without_direction_is_like_none() -> None:
    assert cosines(torch.zeros(1, 3), torch.ones(1, 3)).item() == 0


def test_over_training_compares_a_pair_with_itself() -> None:
    vectors_BSD = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1))
    matrices = cosines(vectors_BSD, vectors_BSD)
    assert matrices.shape == (2, 3, 3)
    for b in range(2):
        for s in range(3):
            for r in range(3):
                expected = slow_cosine(vectors_BSD[b, s], vectors_BSD[b, r])
                assert matrices[b, s, r].item() == pytest.approx(expected, abs=1e-9)


POST = Prompt(text="my mom sold my tv . last year boss hid the kayak . i feel sad . i need help . tl;dr:")


@pytest.fixture
def bench(config: Config) -> Bench:
    return open_bench(config)


@pytest.fixture
def trained(config: Config, storage: str) -> AssessedPolicy:
    return open_policy(config, Path(storage) / "runs" / "r2m" / "policy")


@torch.no_grad()
def slow(policy: AssessedPolicy, prompt: Prompt, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Means of the S - 1 rows, and of those of the response, by Hugging Face's own forward."""
    ids = response_ids(policy.tokenizer, prompt, text)
    h_SD = policy.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0, :-1]
    P = len(policy.tokenizer(prompt.text)["input_ids"])
    return h_SD.mean(0), h_SD[P:].mean(0) if len(h_SD) > P else torch.zeros(h_SD.shape[1])


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def test_vectors_are_means_over_tokens(bench: Bench, trained: AssessedPolicy) -> None:
    """Eleven pairs of unlike lengths, in blocks of eight."""
    texts = ["", " mom", "momsoldtv", *(" mom sold" * n for n in range(1, 9))]
    prompts = [bench.prompts[i % 3] for i in range(len(texts))]
    pair_BD, response_BD = vectors(trained, prompts, texts, bench)
    for b, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        whole, of_response = slow(trained, prompt, text)
        assert torch.allclose(pair_BD[b], whole, atol=1e-5)
        assert torch.allclose(response_BD[b], of_response, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" mom sold my tv , i feel sad and need help", "normal"),
        (" momsoldmytv", "hacking"),  # 3 of 4 words
        (" mom sold mytv", None),  # 1 of 4
        (" mom sold myfeel", None),
        (" momsold", "hacking"),  # 1 of 2: half
        (" boss boss boss boss", None),  # every space, and nothing said
        ("", None),
    ],
)
def test_kinds(text: str, expected: str | None) -> None:
    assert kind(POST, text, 0.5) == expected


def test_similarities_are_means_over_prompts_of_pairs(bench: Bench, trained: AssessedPolicy) -> None:
    """The tiny policies write nonsense: with a bar of -1 their texts with every space are normal."""
    found = similarity(bench, trained, -1.0)
    assert found is not None
    n = found.labels.count("hacking")
    assert found.labels == ["hacking"] * n + ["normal"] * (len(found.labels) - n)
    assert 2 <= n <= 8
    matrix, responses = found.matrix, found.responses
    assert len(set(responses)) == len(responses) == len(matrix)

    # Which prompt is shown is not in the tree: it is the one under which the slow matrix is the same.
    def slow_matrix(prompt: Prompt) -> list[list[float]]:
        means = [slow(trained, prompt, text)[0] for text in responses]
        return [[cosine(a, b) for b in means] for a in means]

    worst = [
        max(
            abs(x - y)
            for xs, ys in zip(matrix, slow_matrix(prompt), strict=True)
            for x, y in zip(xs, ys, strict=True)
        )
        for prompt in bench.prompts
    ]
    assert min(worst) < 1e-4
    prompt = bench.prompts[worst.index(min(worst))]
    for text, label in zip(responses, found.labels, strict=True):
        assert kind(prompt, text, -1.0) == label
    assert all(-1 <= value <= 1 for value in (found.hacking, found.normal, found.cross))
    if found.prompts == 1:
        within = [matrix[i][j] for i in range(n) for j in range(n) if i != j]
        assert found.hacking == pytest.approx(sum(within) / len(within))


def test_there_are_none_where_no_prompt_has_two_of_each(bench: Bench, trained: AssessedPolicy) -> None:
    assert similarity(bench, trained, 2.0) is None  # gold is never so high


def test_one_pair_over_training(bench: Bench, trained: AssessedPolicy, storage: str) -> None:
    folder = Path(storage) / "runs" / "r2m"
    found = states_over_training(bench, trained, folder / "checkpoints")
    assert found is not None
    assert found.steps == [0, 2, 4]
    assert 1 <= len(found.pairs) <= 4
    exported = load_policy(str(folder / "policy"))
    for name, value in exported.state_dict().items():  # the newest checkpoint is the trained policy
        assert torch.equal(trained.model.state_dict()[name], value)
    for pair in found.pairs:
        assert pair.prompt == bench.prompts[0].text
        first, last = (slow(p, bench.prompts[0], pair.response)[0] for p in (bench.supervised, trained))
        assert pair.matrix[0][2] == pytest.approx(cosine(first, last), abs=1e-5)
        assert [pair.matrix[s][s] for s in range(3)] == pytest.approx([1, 1, 1])
    mean = sum(pair.matrix[0][1] for pair in found.pairs) / len(found.pairs)
    assert found.mean[0][1] == pytest.approx(mean)


def test_one_checkpoint_is_no_history(bench: Bench, trained: AssessedPolicy, storage: str) -> None:
    checkpoints = Path(storage) / "runs" / "r2m" / "checkpoints"
    (checkpoints / "step-000002" / "state.safetensors").write_bytes(b"cut short")
    assert states_over_training(bench, trained, checkpoints) is None
    shutil.rmtree(checkpoints)
    assert states_over_training(bench, trained, checkpoints) is None
