"""Memory of N processes that each hold policy, reference and reward model: frozen weights copied against mapped.

Sums of PSS (/proc/PID/smaps_rollup), in which a page that k processes share counts 1/k in each: what the machine
gives away. Nothing is trained: AdamW's states and gradients come on top, the same in both.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch
from side_by_side import one_thread, print_table
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from r2m.policy.loading import frozen_twin, load_policy
from r2m.reward.loading import load_reward_model
from r2m.stages.forum import new_policy
from r2m.tasks.forum import forum_tokenizer

SIZES = {
    "forum": new_policy(forum_tokenizer()).config,
    "135M": LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=2048, tie_word_embeddings=True, pad_token_id=0,
    ),
}  # fmt: skip
PROCESSES = (1, 2, 4)
SEQUENCES, TOKENS = 2, 64


def pss() -> float:
    """Of this process, MiB."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def hold(folder: Path, mapped: bool, barrier: Barrier, results: Any) -> None:
    """Load the three, run each once, and measure before and after while all processes are there."""
    one_thread()
    ids = torch.arange(SEQUENCES * TOKENS).view(SEQUENCES, TOKENS)
    barrier.wait()
    before = pss()
    barrier.wait()
    policy = load_policy(str(folder / "policy"))
    reference = frozen_twin(policy)
    reward, _ = load_reward_model(str(folder / "reward"))
    if not mapped:
        for parameter in [*reference.parameters(), *reward.parameters()]:
            parameter.data = parameter.data.clone()
    with torch.no_grad():
        outputs = [policy(input_ids=ids).logits, reference(input_ids=ids).logits]
        outputs.append(reward(ids, torch.ones_like(ids, dtype=torch.bool)))
    sums = [float(x.double().sum()) for x in outputs]
    del outputs
    barrier.wait()
    results.put((before, pss(), sums))
    barrier.wait()


def measure(folder: Path, mapped: bool, processes: int) -> tuple[float, float, set[tuple[float, ...]]]:
    """MiB of all processes together: after imports, and with the models; and the outputs' sums."""
    spawn = multiprocessing.get_context("spawn")
    barrier, results = spawn.Barrier(processes), spawn.Queue()
    started = [spawn.Process(target=hold, args=(folder, mapped, barrier, results)) for _ in range(processes)]
    for process in started:
        process.start()
    rows = [results.get() for _ in started]
    for process in started:
        process.join()
    return sum(row[0] for row in rows), sum(row[1] for row in rows), {tuple(row[2]) for row in rows}


def main() -> None:
    for size, config in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            torch.manual_seed(0)
            LlamaForCausalLM(config).save_pretrained(Path(folder) / "policy")
            config.num_labels = 1
            LlamaForSequenceClassification(config).save_pretrained(Path(folder) / "reward")
            os.sync()
            weights = sum(f.stat().st_size for f in Path(folder).glob("*/model.safetensors")) / 2**20
            rows, outputs = [], set()
            held: dict[bool, dict[int, float]] = {False: {}, True: {}}
            for processes in PROCESSES:
                row = [str(processes)]
                for mapped in (False, True):
                    imports, total, sums = measure(Path(folder), mapped, processes)
                    held[mapped][processes] = total
                    outputs |= sums
                    row += [f"{total:,.0f}", f"{total - imports:,.0f}"]
                rows.append([*row, f"{held[True][processes] / held[False][processes]:.2f}"])
            first, last = PROCESSES[0], PROCESSES[-1]
            more = {m: (by[last] - by[first]) / (last - first) for m, by in held.items()}
            rows.append(
                [
                    "each further",
                    f"{more[False]:,.0f}",
                    "",
                    f"{more[True]:,.0f}",
                    "",
                    f"{more[True] / more[False]:.2f}",
                ]
            )
            print(f"\n### {size}: files of policy and reward model together {weights:,.1f} MiB, fp32")
            header = ["processes", "copied, MiB", "of it models", "mapped, MiB", "of it models", "ratio"]
            print_table(header, rows)
            same = "bit by bit the same" if len(outputs) == 1 else f"of {len(outputs)} kinds"
            print(f"\nOutputs of all processes: {same}.")


if __name__ == "__main__":
    main()
