"""Independent random streams by name, seed and index, so that nothing needs to be saved to resume."""

import hashlib

import torch


def generator(stream: str, seed: int, index: int) -> torch.Generator:
    """Torch's generator on a CPU keeps the low 32 bits of its seed: hashing makes all three count."""
    key = hashlib.sha256(f"{stream} {seed} {index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:4]))
