"""A real MLflow server, and its pages in a browser without a window."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass

from matplotlib.image import imread

CHROMIUM = shutil.which("chromium")
CARD = 'data-testid="experiment-view-compare-runs-card"'  # begins a chart


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


class Server:
    """`serve` in a process of its own, on one port for its lifetime. `said`: what it prints beside its address."""

    def __init__(self, storage):
        self.storage = storage
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self):
        code = "import sys; from r2m.tracking.ui import serve; sys.exit(serve(sys.argv[1], int(sys.argv[2])))"
        command = [sys.executable, "-c", code, self.storage, str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout.readline() == f"MLflow: {self.uri}\n"

    def kill(self):
        """SIGKILL to the server and its workers, in the middle of whatever they do; `serve` then ends."""
        (leader,) = children(self.process.pid)
        os.killpg(leader, signal.SIGKILL)
        return self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait()


class Browser:
    """Chromium without a window, which waits for a page's own timers before it shows what has become of it."""

    def __init__(self, folder):
        # Without site isolation of sandboxed frames, so that it waits for the frame of an HTML artifact too.
        options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
        options += " --disable-background-networking --disable-component-update"
        options += " --disable-features=IsolateSandboxedIframes --window-size=2200,1800"
        options += f" --virtual-time-budget=40000 --user-data-dir={folder / 'profile'}"
        self.command, self.folder = [CHROMIUM, *options.split()], folder

    def page(self, url):
        command = [*self.command, "--dump-dom", url]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def picture(self, url):
        """Its pixels, [height, width, channels], each 0 to 1, red, green and blue first."""
        path = self.folder / "page.png"
        subprocess.run([*self.command, f"--screenshot={path}", url], check=True, capture_output=True)
        return imread(path)


@dataclass
class Card:
    """A chart of MLflow's Runs page. `legend`: "RLOO (eval/gold)" -> its colour; `curves`: colours of what is drawn,
    and how often; `bars`, `lines`: of a bar chart, of parallel coordinates; `images`: sources."""

    legend: dict[str, str]
    curves: list[str]
    bars: list[str]
    parallel: bool
    images: list[str]

    @property
    def painted(self):
        return bool(self.curves or self.bars or self.parallel or self.images)


def cards(page):
    """The charts of a page that are in sight, in their order."""
    found = []
    for text in page.split(CARD)[1:]:
        legend = re.findall(r"stroke: (rgb\([\d, ]+\))[^<]*></path></svg><span[^>]*>([^<]+)</span>", text)
        lines = re.findall(r'class="js-line"[^>]*stroke: (rgb\([\d, ]+\)); stroke-opacity: 1;', text)
        bars = re.findall(r'class="point"><path[^>]*fill: (rgb\([\d, ]+\))', text)
        images = re.findall(r'<img[^>]*src="([^"]*(?:get-artifact|images)[^"]*)"', text)
        parallel = 'class="parcoords' in text or "<canvas" in text
        found.append(Card({label: colour for colour, label in legend}, lines, bars, parallel, images))
    return found
