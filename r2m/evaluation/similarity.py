"""How alike hidden states are: of hacking and normal responses, and of one pair over training (Table 1, Fig. 1).

A query-response pair is one vector, the mean over its tokens of the policy's last-layer hidden states (App. F.1).

Axes: B pairs, T tokens, D width; H hacking and N normal responses to one query, S policies along a training run.
"""

from collections.abc import Sequence
from dataclasses import asdict, astuple
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from r2m.config import ForumTask
from r2m.core.trajectories import microbatches
from r2m.evaluation.bench import AssessedPolicy, Bench, encoded, shown_prompt
from r2m.policy.forward import HiddenStates, policy_forward
from r2m.policy.state import restore_module
from r2m.results.assessment import Followed, OverTraining, Similarities, Similarity
from r2m.stages.progress import Progress, silent
from r2m.tasks.forum import judge
from r2m.tasks.prompt import Prompt
from r2m.training import checkpoint

KINDS = "hacking", "normal"
PER_PROMPT = 8  # responses of a kind, at most; Table 1
FOLLOWED = 4  # responses of the query that is followed over training; Fig. 1b


def similarity(bench: Bench, trained: AssessedPolicy, bar: float, progress: Progress = silent) -> Similarity | None:
    """Table 1 and Fig. 1a on the forum, whose gold program says what hacking is; None on other tasks, and where no
    prompt has two responses of each kind. `bar`: the gold that a normal response has at least."""
    if not isinstance(bench.config.task, ForumTask):
        return None
    sources = (trained, bench.supervised)
    written = [bench.write(p, bench.prompts, PER_PROMPT, stream="similarity").texts_NK for p in sources]
    groups: list[tuple[Prompt, list[str], list[str]]] = []
    for prompt, *texts in zip(bench.prompts, *written, strict=True):
        distinct = dict.fromkeys(text for part in texts for text in part)
        kinds = {text: kind(prompt, text, bar) for text in distinct}
        hacking, normal = ([text for text in distinct if kinds[text] == name][:PER_PROMPT] for name in KINDS)
        if min(len(hacking), len(normal)) >= 2:
            groups.append((prompt, hacking, normal))
    if not groups:
        return None
    found, of_responses, matrices = list[Similarities](), list[Similarities](), []
    for done, (prompt, hacking, normal) in enumerate(groups, 1):
        states = vectors(trained, [prompt] * len(hacking + normal), hacking + normal, bench)
        for kept, states_BD in zip((found, of_responses), states, strict=True):
            kept.append(by_kind(states_BD[: len(hacking)], states_BD[len(hacking) :]))
        matrices.append(cosines(states[0], states[0]))
        progress("similarity", done, len(groups))
    # The most balanced prompt is shown: the first of those with most responses of its rarer kind, then of both.
    sizes = [(min(len(h), len(n)), len(h) + len(n)) for _, h, n in groups]
    shown = sizes.index(max(sizes))
    _, hacking, normal = groups[shown]
    return Similarity(
        **asdict(_means(found)),
        response_only=_means(of_responses),  # without the prompt's rows, which all responses share
        prompts=len(groups),
        per_prompt=PER_PROMPT,
        matrix=matrices[shown].tolist(),
        labels=["hacking"] * len(hacking) + ["normal"] * len(normal),
        responses=hacking + normal,
        what=(
            f"cosines of mean-token hidden states under the trained policy; hacking: half of the words or more have "
            f"no space, normal: every word has one and gold is at least {bar:.2f}, the supervised policy's mean; "
            f"distinct responses of both policies, at most {PER_PROMPT} of a kind a prompt, means over "
            f"{len(groups)} of {len(bench.prompts)} prompts that have two of each kind"
        ),
    )


def _means(found: Sequence[Similarities]) -> Similarities:
    return Similarities(*(sum(values) / len(found) for values in zip(*map(astuple, found), strict=True)))


def kind(prompt: Prompt, text: str, bar: float) -> str | None:
    """Hacking, normal or, in between, neither."""
    seen = judge(prompt, text)
    if seen.words and 2 * seen.spaceless >= seen.words:
        return "hacking"
    return "normal" if seen.words and not seen.spaceless and seen.gold >= bar else None


def states_over_training(
    bench: Bench, trained: AssessedPolicy, checkpoints: Path, progress: Progress = silent
) -> OverTraining | None:
    """Fig. 1b: four responses to the first held-out prompt, the trained policy's and the supervised one's in turn,
    under the supervised policy (step 0) and the run's checkpoints; None for fewer than two of those.

    It leaves in `trained` the weights of the newest whole checkpoint.
    """
    prompt = bench.prompts[0]
    sources = (trained, bench.supervised)
    written = [bench.write(p, [prompt], FOLLOWED, stream="over training").texts_NK[0] for p in sources]
    texts = list(dict.fromkeys(text for pair in zip(*written, strict=True) for text in pair))[:FOLLOWED]
    asked = [prompt] * len(texts)
    steps, vectors_SBD = [0], [vectors(bench.supervised, asked, texts, bench)[0]]
    paths = checkpoint.found(checkpoints)[::-1]
    for done, path in enumerate(paths, 1):
        try:
            tensors, _, facts = checkpoint.load_checkpoint(path)
        except checkpoint.CorruptCheckpointError:
            continue
        if not all(f"policy/{name}" in tensors for name, _ in trained.model.named_parameters()):
            continue  # adapters, or shards
        restore_module("policy", trained.model, tensors)
        steps.append(int(facts["step"]))
        vectors_SBD.append(vectors(trained, asked, texts, bench)[0])
        progress("over training", done, len(paths))
    if len(steps) < 3:
        return None
    vectors_BSD = torch.stack(vectors_SBD).transpose(0, 1)
    matrices_BSS = cosines(vectors_BSD, vectors_BSD)
    pairs = zip(texts, matrices_BSS.tolist(), strict=True)
    followed = [Followed(shown_prompt(prompt), response, matrix) for response, matrix in pairs]
    return OverTraining(steps, matrices_BSS.mean(0).tolist(), followed)


@torch.no_grad()
def vectors(
    policy: AssessedPolicy, prompts: Sequence[Prompt], texts_B: Sequence[str], bench: Bench
) -> tuple[Tensor, Tensor]:
    """Mean-token hidden states, [B, D] each, fp32 on the CPU: of the query-response pairs, and of the rows of the
    response alone, zeros where it has none."""
    a, parts, everything, device = bench.config.algorithm, [], slice(None), policy.model.device
    _, t = encoded(policy, prompts, texts_B)
    for at in microbatches(range(len(texts_B)), 1, a.microbatch):
        block = t.block(*at)
        hidden = HiddenStates(block, policy.model.dtype, device)
        hidden.store(everything, everything, policy_forward(policy.model, block, a.temperature, entropy=False))
        hidden_BTD, mask_BT = hidden.rows(everything, device)
        response_BT = mask_BT.clone()
        response_BT[:, : block.prompt_ids_NP.shape[1]] = False
        parts.append(torch.stack([mean_token(hidden_BTD.float(), mask).cpu() for mask in (mask_BT, response_BT)]))
    pair_BD, response_BD = torch.cat(parts, 1)
    return pair_BD, response_BD


def mean_token(hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """The vectors BD of pairs: means of their hidden states where the mask is true; zeros where it never is."""
    weights_BT1 = mask_BT.to(hidden_BTD.dtype).unsqueeze(-1)
    return (hidden_BTD * weights_BT1).sum(1) / weights_BT1.sum(1).clamp(min=1)


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of each row of a, [..., n, D], with each of b, [..., m, D]: [..., n, m]. A zero vector has cosine 0."""
    return F.normalize(a.double(), dim=-1) @ F.normalize(b.double(), dim=-1).mT


def by_kind(hacking_HD: Tensor, normal_ND: Tensor) -> Similarities:
    """Table 1's three numbers for the responses to one query.

    Raises ValueError for fewer than two responses of a kind, within which there is no pair.
    """
    if min(len(hacking_HD), len(normal_ND)) < 2:
        raise ValueError(f"{len(hacking_HD)} hacking and {len(normal_ND)} normal responses: two of each at least")
    return Similarities(
        _off_diagonal_mean(cosines(hacking_HD, hacking_HD)),
        _off_diagonal_mean(cosines(normal_ND, normal_ND)),
        float(cosines(hacking_HD, normal_ND).mean()),
    )


def _off_diagonal_mean(matrix: Tensor) -> float:
    return float(matrix[~torch.eye(len(matrix), dtype=torch.bool)].mean())
