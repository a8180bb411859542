"""Independent random streams by name, seed and index, so that nothing needs to be saved to resume."""

import hashlib

import torch


def generator(stream: str, seed: int, index: int) -> torch.Generator:
    """Torch's generator on a CPU keeps the low 32 bits of its seed: hashing makes all three count."""
    key = hashlib.sha256(f"{stream} {seed} {index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:4]))


def request_seed(stream: str, seed: int, step: int, query: int, response: int) -> int:
    """Of 63 bits, for an engine that draws by a seed for each response. `query` counts those of all workers."""
    key = hashlib.sha256(f"{stream} {seed} {step} {query} {response}".encode()).digest()
    return int.from_bytes(key[:8]) >> 1
