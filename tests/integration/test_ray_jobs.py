"""Jobs of a Ray cluster of their own, with its dashboard and a token: submitted, followed, left, tried again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from processes import R2M, descendants, end_of, free_port, kill_all, wait_for
from ray._private.authentication_test_utils import reset_auth_token_state

from r2m.errors import UserError
from r2m.pipelines.execution import executions
from r2m.pipelines.ray_jobs import AskedJob, follow, job_client, submit

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "of-the-tests-0123456789"}
PORTS = (
    "--port", "--dashboard-port", "--dashboard-agent-listen-port", "--dashboard-agent-grpc-port",
    "--ray-client-server-port", "--metrics-export-port",
)  # fmt: skip
PIPELINE = """
name: small
steps:
  sft: {use: sft, recipe: forum, set: {task.posts: 64, task.sft_steps: 2}}
"""


class Script(AskedJob):
    """A job that is a shell script, its file."""

    @property
    def entrypoint(self) -> str:
        return f"sh {self.file.name}"


@pytest.fixture(scope="module")
def head() -> Iterator[tuple[str, int]]:
    """The address of a cluster's dashboard, which wants the token that this process has, and the head's process."""
    with tempfile.TemporaryDirectory(prefix="r2m-", ignore_cleanup_errors=True) as folder:  # socket paths are short
        ports = {option: free_port() for option in PORTS}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        settings = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "PATH": path}
        process = subprocess.Popen(
            [Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--num-cpus=2",
             "--dashboard-host=127.0.0.1", "--object-store-memory=100000000", f"--temp-dir={folder}",
             *(f"{option}={port}" for option, port in ports.items())],
            env=os.environ | settings | TOKEN, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            with pytest.MonkeyPatch.context() as patch:
                for key, value in TOKEN.items():
                    patch.setenv(key, value)
                reset_auth_token_state()  # Ray has kept what it found when this process used it first
                address = f"http://127.0.0.1:{ports['--dashboard-port']}"
                wait_for(lambda: answers(address), process, Path(folder))
                yield address, process.pid
        finally:
            ours = [process.pid, *descendants(process.pid)]
            process.terminate()
            process.wait()
            kill_all(ours)
            reset_auth_token_state()


@pytest.fixture
def dashboard(head: tuple[str, int]) -> str:
    return head[0]


def answers(address: str) -> bool:
    """Whether it takes jobs: the head's agent is there some seconds after its dashboard."""
    try:
        job_client(address).submit_job(entrypoint="true", submission_id="first")
    except (RuntimeError, OSError, UserError) as error:
        return "already exists" in str(error)
    return True


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return tmp_path / "job.sh"


def followed(address: str, job: str) -> tuple[int, str, str]:
    said: list[str] = []
    code, state = follow(job_client(address), job, said.append)
    return code, state, "".join(said)


def test_a_failure_comes_back_and_is_tried_again_once(dashboard: str, script: Path) -> None:
    once = script.parent / "once"
    script.write_text(f"ls; test -e {once} && exit 0; touch {once}; exit 3")
    (script.parent / "beside.txt").write_text("stays")
    asked = Script("again", script, "20261201T0300Z", [])
    client = job_client(dashboard)
    assert submit(client, asked) == ("again-20261201T0300Z-a1", True)
    code, state, said = followed(dashboard, "again-20261201T0300Z-a1")
    assert (code, state) == (3, "failed, exit code 3")
    assert "job.sh" in said
    assert "beside" not in said
    assert submit(client, asked) == ("again-20261201T0300Z-a2", True)
    assert followed(dashboard, "again-20261201T0300Z-a2")[:2] == (0, "succeeded")
    assert submit(client, asked) == ("again-20261201T0300Z-a2", False)  # the tick is done
    by_hand = Script("again", script, "20261201T040000Zm", [], once=False)  # and answers for no other one
    assert submit(client, by_hand) == ("again-20261201T040000Zm-a1", True)
    script.write_text("true")  # another file is another execution
    assert submit(client, asked) == ("again-20261201T0300Z-a3", True)


def test_of_several_at_once_one_starts_a_job(dashboard: str, script: Path) -> None:
    script.write_text("sleep 600")
    asked = Script("at_once", script, "20261201T0300Z", [])
    clients = [job_client(dashboard) for _ in range(6)]
    with ThreadPoolExecutor(len(clients)) as pool:
        answered = list(pool.map(lambda client: submit(client, asked), clients))
    assert {job for job, _ in answered} == {"at_once-20261201T0300Z-a1"}
    assert sum(new for _, new in answered) == 1
    clients[0].stop_job("at_once-20261201T0300Z-a1")
    assert followed(dashboard, "at_once-20261201T0300Z-a1")[:2] == (130, "stopped")


def test_ctrl_c_detaches_and_the_next_call_follows_the_same_job(dashboard: str, tmp_path: Path) -> None:
    """The command line, with a pipeline that really runs."""
    (tmp_path / "small.yaml").write_text(PIPELINE)
    storage = tmp_path / "storage"
    command = [
        R2M, "pipeline", "submit", "small.yaml", "--address", dashboard, "--tick", "2026-12-01T04:00+01:00",
        "--storage", str(storage),
    ]  # fmt: skip
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=said, stderr=said)
    wait_for(lambda: "following it" in (tmp_path / "said").read_text(), process, tmp_path)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    text = (tmp_path / "said").read_text()
    assert "small-20261201T0300Z-a1: submitted" in text
    assert f"ray job logs --address {dashboard} --follow small-20261201T0300Z-a1" in text

    again = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    text = end_of(again, tmp_path)
    assert again.returncode == 0, text
    assert "small-20261201T0300Z-a1: there already" in text
    assert "small-20261201T0300Z-a1: succeeded" in text
    (kept,) = executions(str(storage), "small")
    assert (kept.stamp, kept.view.status) == ("20261201T0300Z", "finished")


def test_what_is_wrong_with_an_address_or_a_token_is_one_line(dashboard: str, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(PIPELINE)

    def refused(address: str, **settings: str) -> str:
        ended = subprocess.run(
            [R2M, "pipeline", "submit", "small.yaml", "--address", address, "--tick", "2026-12-01T03:00Z"],
            cwd=tmp_path, env=os.environ | settings, capture_output=True, text=True,
        )  # fmt: skip
        assert ended.returncode == 2
        (line,) = ended.stderr.splitlines()
        return line

    assert "no Ray dashboard answers there" in refused(f"http://127.0.0.1:{free_port()}")
    assert "such as http://HEAD:8265" in refused("HEAD:6379")
    assert "such as http://HEAD:8265" in refused("ray://127.0.0.1:10001")
    assert "set RAY_AUTH_MODE=token" in refused(dashboard, RAY_AUTH_MODE="disabled")
    assert "set RAY_AUTH_MODE=token" in refused(dashboard, RAY_AUTH_TOKEN="another")


def test_a_head_that_dies_is_not_waited_for_without_end(head: tuple[str, int], script: Path) -> None:
    """The last one, since nothing is left of the cluster."""
    address, pid = head
    script.write_text("sleep 600")
    client = job_client(address)
    job, _ = submit(client, Script("orphan", script, "20261201T0300Z", []))
    kill_all([pid, *descendants(pid)])
    with pytest.raises(UserError, match=f"{job}: the cluster no longer answers"):
        follow(client, job, str, patience_s=0.5)
