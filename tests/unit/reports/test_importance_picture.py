"""The picture of what matters in a sweep."""

from dataclasses import replace

import numpy as np
from made_sweep import MadeSweep
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from r2m.reports.importance_picture import importance_picture
from r2m.reports.style import COLOURS


def bars(path):
    """Lengths of the bars, from top to bottom, in pixels."""
    own = np.isclose(imread(path)[..., :3], to_rgb(COLOURS["R2M"]), atol=0.01).all(-1)
    lengths = own.sum(1)
    edges = np.flatnonzero(np.diff(lengths > 0)) + 1
    return [int(np.median(part)) for part in np.split(lengths, edges) if part[0] > 0]


def test_bars_are_as_long_as_the_shares_and_there_is_none_of_nothing(tmp_path):
    path, answer = tmp_path / "importance.png", MadeSweep(tmp_path).answer()
    importance_picture(answer, path)
    assert not path.exists()
    importance_picture(replace(answer, importance={"reward.alpha": 0.75, "reward.lr": 0.25}), path)
    first, second = bars(path)
    assert abs(first / second - 3) < 0.05
