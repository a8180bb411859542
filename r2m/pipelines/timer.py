"""A machine's own clock for a pipeline: a systemd timer of the user's, or a line of the user's crontab.

Both call the command with `--tick due`, which works out by itself what has come: a timer that fires late, twice, or
after a week in which the machine was off, does no harm.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from r2m.errors import UserError, one_line
from r2m.files import write_whole
from r2m.pipelines.schema import Schedule
from r2m.pipelines.systemd_times import check_plain, on_calendar

LOG_NAME = "timer.log"  # what a crontab's command says, below the storage


@dataclass(frozen=True)
class Clockwork:
    """What is to be called when, and from which folder. `command`: the words."""

    pipeline: str
    schedule: Schedule
    command: Sequence[str]
    folder: Path
    log: Path

    @property
    def cron(self) -> str:
        assert self.schedule.cron is not None
        return self.schedule.cron


class SystemdTimer:
    """Units of the user's own manager."""

    def __init__(self, of: Clockwork) -> None:
        self.of = of
        config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        self._stem = config / "systemd" / "user" / f"r2m-{of.pipeline}"
        self.timer = f"{self._stem.name}.timer"

    def files(self) -> dict[Path, str]:
        """Path -> text. Raises UserError for an expression that systemd has no words for."""
        _check_printable([*self.of.command, str(self.of.folder)])
        what = f"Description=R2M pipeline {self.of.pipeline}"
        service = f"""[Unit]
{what}

[Service]
Type=oneshot
WorkingDirectory={_systemd_path(str(self.of.folder))}
ExecStart={" ".join(map(_systemd_word, self.of.command))}
"""
        timer = f"""[Unit]
{what}: {self.of.cron.replace("%", "%%")}

[Timer]
OnCalendar={on_calendar(self.of.schedule)}
Persistent=true

[Install]
WantedBy=timers.target
"""
        return {Path(f"{self._stem}.service"): service, Path(f"{self._stem}.timer"): timer}

    def shown(self) -> str:
        return "\n".join(f"# {path}\n{text}" for path, text in self.files().items()).rstrip()

    def install(self) -> list[str]:
        """What was done. Raises UserError, with nothing left behind, where systemd refuses."""
        files = self.files()
        before = {path: path.read_text(encoding="utf-8") if path.is_file() else None for path in files}
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, text)
        try:
            _called("systemctl", "--user", "daemon-reload")
            _called("systemctl", "--user", "enable", "--now", self.timer)
        except UserError:
            for path, old in before.items():
                path.unlink() if old is None else write_whole(path, old)
            raise
        linger = "loginctl enable-linger keeps it running while you are logged out"
        return [*(f"written: {path}" for path in files), f"enabled: {self.timer}; {linger}"]

    def remove(self) -> list[str]:
        there = [path for path in self.paths if path.is_file()]
        if not there:
            return [f"{self.timer}: not installed"]
        _called("systemctl", "--user", "disable", "--now", self.timer)
        for path in there:
            path.unlink()
        _called("systemctl", "--user", "daemon-reload")
        return [f"removed: {path}" for path in there]

    @property
    def paths(self) -> list[Path]:
        return [Path(f"{self._stem}.service"), Path(f"{self._stem}.timer")]


class CrontabLine:
    """A line of the user's crontab, found again by what it ends in."""

    def __init__(self, of: Clockwork) -> None:
        self.of, self._mark = of, f"# r2m pipeline {of.pipeline}"

    def shown(self) -> str:
        """Raises UserError where the machine's clock is another zone's: a crontab knows no zones."""
        check_plain(self.of.cron)
        zone = self.of.schedule.zone
        now = time.time()
        days = (datetime.fromtimestamp(now + 86400 * day, UTC) for day in range(366))
        if any(day.astimezone().utcoffset() != day.astimezone(zone).utcoffset() for day in days):
            raise UserError(
                f"schedule.time_zone = {self.of.schedule.time_zone!r}: a crontab runs by the machine's own zone, "
                "which is another; --by systemd takes any"
            )
        _check_printable([*self.of.command, str(self.of.folder), str(self.of.log)])
        said = f"cd {shlex.quote(str(self.of.folder))} && {shlex.join(self.of.command)}"
        said += f" >> {shlex.quote(str(self.of.log))} 2>&1"
        return f"{self.of.cron} {said.replace('%', chr(92) + '%')} {self._mark}"

    def install(self) -> list[str]:
        line = self.shown()
        self.of.log.parent.mkdir(parents=True, exist_ok=True)
        _write_crontab([*self._others(), line])
        return [f"in the crontab: {line}"]

    def remove(self) -> list[str]:
        lines = _crontab()
        others = self._others()
        if len(others) == len(lines):
            return [f"{self._mark}: not in the crontab"]
        _write_crontab(others)
        return [f"out of the crontab: {line}" for line in lines if line not in others]

    def _others(self) -> list[str]:
        return [line for line in _crontab() if not line.endswith(self._mark)]


def _check_printable(words: Sequence[str]) -> None:
    """Raises UserError: a line end would begin a setting, or a line, of its own."""
    for word in words:
        if not word.isprintable():
            raise UserError(f"{word!r}: neither a unit nor a crontab takes what is not printable, such as a line end")


def _systemd_word(word: str) -> str:
    """Quoted as systemd reads a command line: % are specifiers there, $ variables, and a backslash escapes."""
    word = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$")
    plain = word and not set(word) & set(" \t\"'\\;")
    return word if plain else '"' + word.replace('"', '\\"') + '"'


def _systemd_path(path: str) -> str:
    """Of a setting that takes one path: neither quotes nor variables are read there."""
    return path.replace("%", "%%")


def _called(*command: str) -> str:
    """Its stdout. Raises UserError for a program that is not there, or fails."""
    if shutil.which(command[0]) is None:
        raise UserError(f"{command[0]}: no such program on this machine")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = one_line(done.stderr or done.stdout) or f"exit code {done.returncode}"
        raise UserError(f"{' '.join(command)}: {said}")
    return done.stdout


def _crontab() -> list[str]:
    if shutil.which("crontab") is None:
        raise UserError("crontab: no such program on this machine")
    done = subprocess.run(["crontab", "-l"], capture_output=True, text=True)
    if done.returncode and "no crontab" not in done.stderr:
        raise UserError(f"crontab -l: {one_line(done.stderr)}")
    return done.stdout.splitlines() if not done.returncode else []


def _write_crontab(lines: Sequence[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    done = subprocess.run(["crontab", "-"], input=text, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"crontab -: {one_line(done.stderr)}")
