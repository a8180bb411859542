import platform
import subprocess

import pytest

import r2m
from r2m.runs.provenance import environment, git_state


@pytest.fixture
def checkout(tmp_path):
    """A function that runs git in a fresh checkout, and a source file in it, not yet tracked."""

    def git(*args):
        identity = ("-c", "user.name=someone", "-c", "user.email=someone@example.org")
        command = ["git", "-C", tmp_path, *identity, *args]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init")
    source = tmp_path / "source.py"
    source.write_text("1\n")
    return git, source


def test_versions_are_those_that_run():
    versions = environment()
    assert versions["python"] == platform.python_version()
    assert versions["r2m"] == r2m.__version__
    assert versions.keys() == {"python", "r2m", "torch", "transformers", "ray", "mlflow"}


def test_the_commit_and_whether_the_tree_differs_from_it(checkout):
    git, source = checkout
    git("add", "source.py")
    assert git_state(source) == {}  # no commit yet
    git("commit", "-m", "one")
    assert git_state(source) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    source.write_text("2\n")
    assert git_state(source) == {"commit": git("rev-parse", "HEAD"), "dirty": True}


def test_a_source_that_the_checkout_does_not_track_has_no_commit(checkout):
    git, source = checkout
    git("commit", "--allow-empty", "-m", "someone else's project, with our package installed in it")
    assert git_state(source) == {}


def test_outside_a_checkout_and_without_git_there_is_no_commit(checkout, tmp_path_factory, monkeypatch):
    assert git_state(tmp_path_factory.mktemp("plain") / "source.py") == {}
    git, source = checkout
    git("add", "source.py")
    git("commit", "-m", "one")
    monkeypatch.setenv("PATH", "")
    assert git_state(source) == {}
