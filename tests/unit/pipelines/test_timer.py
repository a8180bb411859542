"""A pipeline on the machine's own clock: a systemd timer, a line of a crontab."""

import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cronsim import CronSim
from typer.testing import CliRunner

from r2m.cli import app
from r2m.errors import UserError
from r2m.pipelines.schema import Schedule
from r2m.pipelines.systemd_times import on_calendar
from r2m.pipelines.timer import Clockwork, CrontabLine, SystemdTimer

ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not on this machine")
ROOT = Path(__file__).resolve().parents[3]
PIPELINE = "steps: {paper: {use: paper, recipe: forum, seeds: 1}}\n"
ODD = ["/bin/echo", "a b", 'quo"te', "it's", "100%", "$HOME ${x}", "back\\slash", "semi;colon", "Ω", ""]


def clock(tmp_path: Path, cron: str = "0 3 * * *", zone: str = "UTC", words=("/bin/true",)) -> Clockwork:
    schedule = Schedule(cron=cron, time_zone=zone)
    return Clockwork("night", schedule, list(words), tmp_path, tmp_path / "timer.log")


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A home and programs of the test's own: the real ones would change this machine's user. `called`: what was."""
    folder, programs = tmp_path / "home", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    (programs / "systemctl").write_text(
        f'#!/bin/sh\necho "$@" >> {folder}/called\nexit $(cat {folder}/code || echo 0)\n'
    )
    (programs / "crontab").write_text(
        f'#!/bin/sh\nif [ "$1" = -l ]; then\ncat {folder}/tab 2>/dev/null || {{ echo no crontab >&2; exit 1; }}\n'
        f"else cat > {folder}/tab; fi\n"
    )
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    (folder / "code").write_text("0")
    return folder


@needs_systemd
@pytest.mark.parametrize("cron", [
    "0 3 * * *", "*/15 * * * *", "5,35 8-17 * * mon-fri", "0 0 1 * *", "30 3 31 * *", "0 4 * jan,jul sun",
    "0 12 */10 * *",
    "7 7 29 2 *", "0 22 * * 5-7",
])  # fmt: skip
@pytest.mark.parametrize("zone", ["UTC", "Europe/Zurich"])
def test_systemd_has_the_same_times(cron, zone):
    said = subprocess.run(
        [ANALYZE, "calendar", "--iterations=8", "--base-time=2026-05-03 12:00:00 UTC",
         on_calendar(Schedule(cron=cron, time_zone=zone))],
        capture_output=True, text=True, env=os.environ | {"TZ": "UTC"},
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    lines = [line for line in said.stdout.splitlines() if "elapse" in line or "Iter." in line]
    found = [re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d", line)[0] for line in lines]
    assert len(found) >= 3, said.stdout
    ticks = CronSim(cron, datetime(2026, 5, 3, 12, tzinfo=UTC).astimezone(Schedule(time_zone=zone).zone))
    expected = [f"{next(ticks).astimezone(UTC):%Y-%m-%d %H:%M}" for _ in found]
    assert found == expected


@pytest.mark.parametrize(("cron", "words"), [
    ("0 3 1 * mon", "--by cron has"), ("0 3 L * *", "by their numbers"), ("0 3 * * 1#2", "by their numbers"),
])  # fmt: skip
def test_what_systemd_cannot_say_is_refused(cron, words):
    with pytest.raises(UserError, match=words):
        on_calendar(Schedule(cron=cron))


@needs_systemd
def test_a_time_that_summer_time_leaves_out_is_refused_because_systemd_leaves_it_out():
    """On 29 March 2026 in Zurich, 02:30 is none: cron's rule has 03:00 (01:00 UTC)."""
    said = subprocess.run(
        [ANALYZE, "calendar", "--iterations=1", "--base-time=2026-03-28 12:00:00 UTC",
         "*-*-* 02:30:00 Europe/Zurich"],
        capture_output=True, text=True, env=os.environ | {"TZ": "UTC"},
    )  # fmt: skip
    assert "2026-03-30 00:30:00" in said.stdout
    with pytest.raises(UserError, match="systemd would not run it then"):
        on_calendar(Schedule(cron="30 2 * * *", time_zone="Europe/Zurich"))
    for cron, zone in (("30 2 * * *", "UTC"), ("30 3 * * *", "Europe/Zurich"), ("30 2 * * mon", "Europe/Zurich")):
        on_calendar(Schedule(cron=cron, time_zone=zone))


@pytest.mark.parametrize("kind", [SystemdTimer, CrontabLine])
def test_a_line_end_in_a_word_is_refused(tmp_path, kind):
    for of in (clock(tmp_path, words=["/bin/true", "a\nExecStart=/bin/false"]), clock(tmp_path / "a\nb")):
        with pytest.raises(UserError, match="line end"):
            kind(of).shown()


@needs_systemd
def test_the_units_are_good_ones_however_odd_the_words(tmp_path, home):
    folder = tmp_path / "a b"
    folder.mkdir()
    timer = SystemdTimer(clock(folder, words=ODD))
    for path, text in timer.files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    said = subprocess.run([ANALYZE, "verify", "--user", *map(str, timer.paths)], capture_output=True, text=True)
    mine = [line for line in said.stderr.splitlines() if "r2m-night" in line]
    assert mine == []


def test_the_crontabs_words_reach_the_command_whole(tmp_path):
    """As cron runs them: % begins the input of a command unless it is escaped, the rest is the shell's."""
    line = CrontabLine(clock(tmp_path, words=["printf", r"<%s>\n", *ODD[1:]])).shown()
    assert line.startswith("0 3 * * * cd ")
    command = line.removeprefix("0 3 * * * ").replace(r"\%", "%")
    subprocess.run(["sh", "-c", command], check=True)
    assert (tmp_path / "timer.log").read_text() == "".join(f"<{word}>\n" for word in ODD[1:])


def test_a_crontab_has_no_zone_but_the_machines(tmp_path, monkeypatch):
    here = datetime.now().astimezone().utcoffset()
    other = "Asia/Kolkata" if here != datetime.now(Schedule(time_zone="Asia/Kolkata").zone).utcoffset() else "UTC"
    with pytest.raises(UserError, match=f"time_zone = '{other}'.*systemd takes any"):
        CrontabLine(clock(tmp_path, zone=other)).shown()


def test_a_line_goes_in_and_out_and_leaves_the_others_as_they_were(tmp_path, home):
    others = "# mine\n\nMAILTO=me\n*/5 * * * * /bin/true  # r2m pipeline nightly\n"
    (home / "tab").write_text(others)
    line = CrontabLine(clock(tmp_path))
    for _ in range(2):  # twice is once
        line.install()
    assert (home / "tab").read_text() == others + line.shown() + "\n"
    CrontabLine(clock(tmp_path, cron="0 4 * * *")).install()
    assert (home / "tab").read_text().count("r2m pipeline night\n") == 1
    assert "out of the crontab" in line.remove()[0]
    assert "not in the crontab" in line.remove()[0]
    assert (home / "tab").read_text() == others


def test_units_are_installed_and_removed_and_nothing_stays_where_systemd_refuses(tmp_path, home):
    timer = SystemdTimer(clock(tmp_path))
    timer.install()
    assert [path.read_text() for path in timer.paths] == list(timer.files().values())
    assert (home / "called").read_text().splitlines() == [
        "--user daemon-reload", "--user enable --now r2m-night.timer",
    ]  # fmt: skip
    timer.remove()
    assert not any(path.exists() for path in timer.paths)
    assert timer.remove() == ["r2m-night.timer: not installed"]
    (home / "code").write_text("1")
    with pytest.raises(UserError, match="systemctl --user daemon-reload"):
        timer.install()
    assert not any(path.exists() for path in timer.paths)


def test_the_command_shows_what_it_would_write_and_installs_when_asked(tmp_path, home, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("night.yaml").write_text(PIPELINE)

    def said(*words: str) -> str:
        result = CliRunner().invoke(app, ["pipeline", "schedule", "night.yaml", *words])
        return result.output if result.exception is None else str(result.exception)

    assert said() == "--cron: missing, and the file has no schedule.cron"
    assert said("--cron", "0 3 * *").startswith("schedule.cron = ") or "minute hour day" in said("--cron", "0 3 * *")
    assert "--address is needed" in said("--cron", "0 3 * * *", "--submit")
    assert "one of the two" in said("--cron", "0 3 * * *", "--install", "--remove")
    shown = said("--cron", "0 3 * * *")
    assert "OnCalendar=*-*-* 03:00:00 UTC" in shown
    assert not (home / ".config").exists()
    said("--cron", "0 3 * * *", "--install")
    units = home / ".config" / "systemd" / "user"
    assert sorted(path.name for path in units.iterdir()) == ["r2m-night.service", "r2m-night.timer"]
    said("--cron", "0 3 * * *", "--remove")
    assert list(units.iterdir()) == []


def test_what_the_clock_calls_runs(tmp_path, home, monkeypatch):
    """The very line, by a shell: a file that cannot run here says so in one line, exit code 2."""
    folder = tmp_path / "it's a %folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    Path("night.yaml").write_text(
        'steps: {arms: {use: train, recipe: forum, set: {run.device: gpu}}}\nschedule: {cron: "* * * * *"}\n'
    )
    result = CliRunner().invoke(app, ["pipeline", "schedule", "night.yaml", "--by", "cron", "--storage", "a b"])
    line = result.output.splitlines()[0].removeprefix("* * * * * ").replace(r"\%", "%")
    log = folder / "a b" / "pipelines" / "timer.log"
    log.parent.mkdir(parents=True)  # as --install does
    assert subprocess.run(["sh", "-c", line]).returncode == 2
    assert log.read_text().startswith("error: steps.arms: ")


def test_it_prints_what_the_document_shows(home, monkeypatch):
    monkeypatch.chdir(ROOT)
    said = CliRunner().invoke(app, ["pipeline", "schedule", "pipelines/forum_nightly.yaml", "--by", "systemd"]).output
    program = str(Path(sys.executable).with_name("r2m"))
    said = said.replace(str(home), "~").replace(program, "/home/me/r2m/.venv/bin/r2m")
    said = said.replace(str(ROOT), "/home/me/r2m")
    assert f"```\n{said}```\n" in (ROOT / "docs" / "pipelines.md").read_text()
