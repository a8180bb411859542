"""Pages in a real browser, for the tests that look at them."""

import re
import shutil
import subprocess
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--virtual-time-budget=20000", "--enable-logging=stderr", "--dump-dom",
)  # fmt: skip


def drawn_plots(html: Path, profile: Path) -> tuple[dict[str, int], str]:
    """How many drawings each plot of a report has once the browser is done, and the page as it then is.

    Fails where a script did.
    """
    page = subprocess.run(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", html.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "Uncaught" not in page.stderr
    parts = re.split(r'id="plot-([\w-]+)"', page.stdout)
    plots = zip(parts[1::2], parts[2::2], strict=True)
    return {name: part.count('class="main-svg"') for name, part in plots}, page.stdout
