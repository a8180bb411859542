"""Streams of random numbers that share nothing."""

import torch

from r2m.core.seeds import generator


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
