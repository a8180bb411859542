"""The paper's own numbers, as its tables print them: label -> row. Percent, but for similarities and lengths.

Lengths are AlpacaEval's, in characters. None: the paper's table has no such row or cell.
"""

from __future__ import annotations

QWEN = "paper: Qwen2.5-3B, AlpacaEval 2"
LLAMA = "paper: LLaMA3-8B, AlpacaEval 2"
TLDR = "paper: Pythia-2.8B, TL;DR"
COLLAPSED = "paper: Pythia-1B, TL;DR"
ACCURACY = "paper: UltraFeedback"
SIMILARITY = "paper: LLaMA3-8B, UltraFeedback"

TABLE_1 = {"hacking": 0.67, "normal": 0.75, "cross": 0.45}

TABLE_2 = {  # LC, WR, length of Qwen2.5-3B; the same of LLaMA3-8B; WR on TL;DR
    "SFT": (15.5, 15.8, 2218, 22.9, 22.6, 1899, 42.3),
    "GRPO": (22.7, 25.6, 3012, 29.5, 32.6, 2216, 75.2),
    "ReMax": (21.8, 25.1, 2916, 28.7, 30.7, 2289, 75.1),
    "REINFORCE++": (21.4, 26.4, 3252, 29.3, 31.8, 2192, 74.3),
    "RLOO": (21.9, 26.0, 3174, 28.4, 30.2, 2186, 75.3),
    "R2M": (24.8, 31.2, 2911, 34.5, 38.2, 2011, 81.6),
}

TABLE_3 = {  # Qwen2.5-3B, LLaMA3-8B
    "without": (72.3, 72.3),
    "before": (68.3, 69.2),
    "after": (77.4, 78.6),
}

TABLE_4 = {"SFT": 33.7, "RLOO": 8.7, "R2M": 61.6}

TABLE_5 = {  # LC, its difference to R2M, WR, its difference, length
    "RLOO": (28.4, -6.1, 30.2, -8.0, 2186),
    "R2M, noise": (25.4, -9.1, 26.4, -11.8, 2276),
    "R2M, no training": (26.1, -8.4, 28.9, -9.3, 2183),
    "R2M, no BT": (31.5, -3.0, 35.7, -2.5, 2116),
    "R2M, no GRE": (32.3, -2.2, 36.2, -2.0, 2191),
    "R2M": (34.5, None, 38.2, None, 2011),
}
