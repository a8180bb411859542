"""Streams of random numbers that share nothing."""

import torch

from r2m.core.seeds import generator, request_seed


def first(stream: str, seed: int, index: int) -> tuple[float, ...]:
    return tuple(torch.rand(4, generator=generator(stream, seed, index)).tolist())


def test_name_seed_and_index_all_count() -> None:
    """Also where seeds are large, and where name, seed and index differ in a digit's place alone."""
    seeds = [0, 1, 2, 11, 2**31, 2**32, 2**32 + 1, 2**64]
    keys = [(stream, seed, index) for stream in ("a", "b") for seed in seeds for index in (0, 1, 11)]
    assert len({first(*key) for key in keys}) == len(keys)


def test_they_are_the_same_each_time() -> None:
    """Here, and wherever a run is resumed: numbers as they were when this was written."""
    assert first("rounds", 0, 1) == first("rounds", 0, 1)
    assert generator("rounds", 0, 1).initial_seed() == 0x1D23DD50  # of sha256sum


def test_every_request_has_a_seed_of_its_own() -> None:
    streams, seeds, ten = ("rounds", "held-out"), (0, 1, 2**32), range(11)
    found = {request_seed(s, seed, 1, i, k) for s in streams for seed in seeds for i in ten for k in ten}
    found |= {request_seed("rounds", 0, step, i, 0) for step in range(2, 12) for i in ten}
    assert len(found) == 2 * 3 * 121 + 110
    assert len({seed % 2**32 for seed in found}) == len(found)  # what a generator on a CPU keeps
    assert max(found) < 2**63
    assert request_seed("rounds", 0, 1, 2, 3) == 0x2DA355369EDEC9BD  # of sha256sum
