"""An engine in the process of the test."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from r2m.policy.vllm_sampler import Drawn, EngineSettings, Request
from r2m.training.vllm_engine import VllmEngine, buckets, shared

HOLES = 3  # ids after the last token's, in the tests' policies


class EngineHere:
    """As r2m.training.vllm_engine.RayEngine, without Ray: small buckets, and it cannot die."""

    def __init__(self, settings: EngineSettings) -> None:
        self.engine = VllmEngine(settings)

    def load(self, weights: Iterator[tuple[str, Tensor]], version: int) -> None:
        self.engine.begin_reload()
        for bucket in buckets(weights, 50_000):
            with shared(bucket) as path:
                self.engine.load(path)
        self.engine.end_reload(version)

    def write(self, requests: Sequence[Request]) -> tuple[int | None, list[Drawn]]:
        return self.engine.write(requests)

    def restart(self) -> None:
        raise NotImplementedError
