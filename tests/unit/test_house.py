"""The house: small modules, one home for a name, and documents that name what is there."""

from __future__ import annotations

import ast
import importlib
import re
import statistics
from collections import Counter, defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "r2m").rglob("*.py"))
DOCUMENTS = [ROOT / "README.md", *sorted(ROOT.glob("*/README.md")), *sorted((ROOT / "docs").glob("*.md"))]
PATH = re.compile(r"(?<![\w./-])((?:r2m|tests|docs|benchmarks|search_spaces|dashboards|pipelines)/[\w./*-]*[\w/*])")
PATH_AND_NAMES = re.compile(r"`(r2m/[\w/]+\.py)` (`\w+(?:\.\w+)?`(?:, `\w+`)*)")


def homes() -> dict[str, set[str]]:
    """Public functions, classes and constants of modules, but for those of commands, which are named as they are
    typed."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in MODULES:
        if path.parent.name == "cli":
            continue
        for node in ast.parse(path.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names = [n.id for t in targets if t for n in ast.walk(t) if isinstance(n, ast.Name)]
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names = [node.name]
            for name in names:
                if not name.startswith("_"):
                    found[name].add(str(path.relative_to(ROOT)))
    return found


def test_modules_are_small() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in MODULES}
    assert {path: count for path, count in lines.items() if count > 250} == {}
    assert statistics.median(lines.values()) <= 110


def test_modules_of_tests_have_names_of_their_own() -> None:
    """pytest takes two of one name for one."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert {name for name, count in names.items() if count > 1} == set()


def test_a_public_name_has_one_home() -> None:
    assert {name: sorted(paths) for name, paths in homes().items() if len(paths) > 1} == {}


def test_the_readme_says_what_is_in_each_folder() -> None:
    table = (ROOT / "README.md").read_text().split("## What is where")[1]
    named = set(re.findall(r"r2m/(\w+)/", table))
    assert named == {path.name for path in (ROOT / "r2m").iterdir() if any(path.glob("*.py"))}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_document_names_is_there(document: Path) -> None:
    text = document.read_text()
    text = re.sub("`?r2m/(sweeps|pipelines)/(?=[A-Z.`…])", "`", text)  # begins an experiment's name in MLflow
    assert [path for path in PATH.findall(text) if not any(ROOT.glob(path.rstrip("/")))] == []
    for path, names in PATH_AND_NAMES.findall(text):
        for name in re.findall(r"`([\w.]+)`", names):
            defined = re.compile(rf"(def|class) {name.split('.')[-1]}\b|^{name} =", re.MULTILINE)
            assert defined.search((ROOT / path).read_text()), f"{path}: no {name}"


@pytest.mark.parametrize("script", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_a_benchmark_imports_what_there_is(script: Path) -> None:
    """They run for too long to be run here, and may import what only they need."""
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "r2m":
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
