"""A systemd timer or a crontab line that calls a pipeline's command. Both are the user's own; nothing runs as root."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from r2m.errors import UserError
from r2m.files import write_whole
from r2m.pipelines.cron import parsed_cron, ticks_between

WEEKDAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
AHEAD = timedelta(days=5 * 366)  # that a translation is compared with the expression over
LOCAL_TIME = Path("/etc/localtime")


@dataclass(frozen=True)
class Timer:
    """`command` is run in `folder`, as systemd's user or cron does: with little of an environment. `log`: cron's."""

    name: str
    cron: str
    zone: ZoneInfo
    command: Sequence[str]
    folder: Path
    log: Path

    @property
    def unit(self) -> str:
        return f"r2m-{self.name}"

    @property
    def mark(self) -> str:
        """What a crontab line of ours ends with."""
        return f" # r2m pipeline {self.name}"


def on_calendar(cron: str, zone: ZoneInfo, now: datetime) -> list[str]:
    """systemd's calendar events of a cron expression: two where a day of the month or one of the week will do.

    Raises UserError where systemd would leave one of its times out: those that daylight saving shifts or repeats.
    """
    read = parsed_cron(cron)
    minutes, hours, months, days = (
        _list(of, whole) for of, whole in ((read.minutes, range(60)), (read.hours, range(24)),
                                           (read.months, range(1, 13)), (read.days, range(1, 32)))
    )  # fmt: skip
    of_week = sorted({int(day) % 7 for day in read.weekdays if isinstance(day, int)})
    weekdays = "" if len(of_week) == 7 else ",".join(WEEKDAYS[day] for day in of_week) + " "
    for tick in ticks_between(cron, zone, now, now + AHEAD):
        local = tick.astimezone(zone)
        if local.fold or local.hour not in read.hours or local.minute not in read.minutes:
            raise UserError(
                f"schedule.cron = {cron!r}, schedule.time_zone = {zone.key!r}: systemd would leave out "
                f"{local:%Y-%m-%d %H:%M %Z}, by daylight saving; another hour, the zone UTC or --by cron is allowed"
            )
    time = f"{hours}:{minutes}:00 {zone.key}"
    if read.day_and or days == "*" or not weekdays:
        either = not read.day_and  # and one of the two is every day
        return [f"{'' if either else weekdays}*-{months}-{'*' if either else days} {time}"]
    return [f"*-{months}-{days} {time}", f"{weekdays}*-{months}-* {time}"]


def systemd_units(timer: Timer, now: datetime) -> dict[str, str]:
    """File names and texts. Raises UserError as `on_calendar`, and for a path that no unit can have."""
    calendar = "".join(f"OnCalendar={event}\n" for event in on_calendar(timer.cron, timer.zone, now))
    folder = _printable(str(timer.folder)).replace("%", "%%")
    command = " ".join(_quoted_for_systemd(word) for word in timer.command)
    service = (
        f"[Unit]\nDescription=The pipeline {timer.name}\n\n"
        f"[Service]\nType=oneshot\nWorkingDirectory={folder}\nExecStart={command}\n"
    )
    clock = (
        f"[Unit]\nDescription=The pipeline {timer.name}: {timer.cron} {timer.zone.key}\n\n"
        f"[Timer]\n{calendar}Persistent=true\n\n[Install]\nWantedBy=timers.target\n"
    )
    return {f"{timer.unit}.service": service, f"{timer.unit}.timer": clock}


def crontab_line(timer: Timer, now: datetime) -> str:
    """Raises UserError where the zone is not the machine's: Debian's cron knows no other."""
    if not _is_local(timer.zone, now):
        raise UserError(
            f"schedule.time_zone = {timer.zone.key!r}: cron goes by this machine's zone, which is another; "
            "--by systemd, or the machine's zone, is allowed"
        )
    words = f"cd {shlex.quote(str(timer.folder))} && {shlex.join(timer.command)} >> {shlex.quote(str(timer.log))} 2>&1"
    return f"{timer.cron} {_printable(words).replace('%', chr(92) + '%')}{timer.mark}"


def install_systemd(timer: Timer, now: datetime) -> list[Path]:
    """The files written. A timer of the same name is replaced. Raises UserError where systemctl refuses."""
    folder = _unit_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (units := systemd_units(timer, now)).items():
        write_whole(folder / name, text)
    _ran("systemctl", "--user", "daemon-reload")
    _ran("systemctl", "--user", "enable", f"{timer.unit}.timer")
    _ran("systemctl", "--user", "restart", f"{timer.unit}.timer")  # one that has been there goes by its new text
    return [folder / name for name in units]


def remove_systemd(unit: str) -> list[Path]:
    """The files removed. A run that is under way goes on."""
    files = [_unit_folder() / f"{unit}.{kind}" for kind in ("service", "timer")]
    there = [file for file in files if file.exists()]
    if there:
        _ran("systemctl", "--user", "disable", "--now", f"{unit}.timer")
        for file in there:
            file.unlink()
        _ran("systemctl", "--user", "daemon-reload")
    return there


def install_crontab(timer: Timer, now: datetime) -> None:
    """A line of the same pipeline's is replaced, all others stay. Raises UserError where crontab refuses."""
    line = crontab_line(timer, now)
    timer.log.parent.mkdir(parents=True, exist_ok=True)
    others = [other for other in _crontab() if not other.endswith(timer.mark)]
    _ran("crontab", "-", given="\n".join([*others, line]) + "\n")


def remove_crontab(mark: str) -> list[str]:
    """The lines removed."""
    lines = _crontab()
    ours = [line for line in lines if line.endswith(mark)]
    if ours:
        _ran("crontab", "-", given="".join(f"{line}\n" for line in lines if not line.endswith(mark)))
    return ours


def _list(of: set[int], whole: range) -> str:
    return "*" if of == set(whole) else ",".join(f"{value:02d}" for value in sorted(of))


def _quoted_for_systemd(word: str) -> str:
    escaped = _printable(word).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def _printable(text: str) -> str:
    if not text.isprintable():
        raise UserError(f"{text!r}: a path or setting of printable characters is needed, without line ends")
    return text


def _is_local(zone: ZoneInfo, now: datetime) -> bool:
    """By the days of a year: a zone has several names."""
    if LOCAL_TIME.exists():
        with LOCAL_TIME.open("rb") as file:
            local = ZoneInfo.from_file(file)
    else:
        local = ZoneInfo("UTC")
    days = (now + timedelta(days=day) for day in range(366))
    return all(day.astimezone(local).utcoffset() == day.astimezone(zone).utcoffset() for day in days)


def _unit_folder() -> Path:
    configured = os.environ.get("XDG_CONFIG_HOME")
    return (Path(configured) if configured else Path.home() / ".config") / "systemd" / "user"


def _crontab() -> list[str]:
    try:
        done = subprocess.run(["crontab", "-l"], capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError("crontab: there is none on this machine; --by systemd is allowed") from None
    if done.returncode and "no crontab" not in done.stderr:
        raise UserError(f"crontab -l: {done.stderr}")
    return done.stdout.splitlines() if done.returncode == 0 else []


def _ran(*command: str, given: str | None = None) -> None:
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError(f"{command[0]}: there is none on this machine; take the other --by") from None
    if done.returncode:
        raise UserError(f"{' '.join(command)}: {done.stderr or done.stdout}")

