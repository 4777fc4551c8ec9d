import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flawline.benchmarks import plots
from flawline.runtime.errors import InputError

pytest.importorskip("matplotlib")
cv2 = pytest.importorskip("cv2")
figure = pytest.importorskip("matplotlib.figure")

CURVES = [plots.Curve("JL Gaussian", [8, 32, 100, 150], [0.8, 0.85, 0.9, 0.91], [0.02, 0.01, 0.01, 0.01])]


def drawn(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None
    assert image.std() > 5
    return image


def test_plots_are_drawn(tmp_path):
    path = tmp_path / "plot.png"
    plots.accuracy_against_dimension(path, CURVES, title="t", metric="image AUROC", reference=("all", 0.92))
    drawn(path)
    plots.cost_against_dimension(path, CURVES, CURVES, title="t")
    drawn(path)
    generator = np.random.default_rng(0)
    defective = generator.random(60) < 0.4
    scores = np.round(generator.normal(size=60) + defective, 1)
    plots.roc(path, defective, scores, title="t", auroc=0.7)
    drawn(path)
    plots.score_histogram(path, {"good": scores[~defective], "defective": scores[defective]}, 0.5, title="t")
    drawn(path)


@pytest.mark.parametrize("high", [9.0, 900.0])
def test_logarithmic_axes_are_labelled_with_plain_decimals(high):
    axes = figure.Figure().add_subplot()
    axes.plot([1, 2], [0.95 * high / 3, high])
    axes.set_yscale("log")
    plots._plain_decimals(axes)
    low, top = axes.get_ylim()
    labels = [label.get_text() for label in axes.get_yticklabels(which="both")]
    shown = [float(label) for label in labels if label]
    assert sum(low <= value <= top for value in shown) >= 2


def test_equal_input_gives_equal_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        plots.accuracy_against_dimension(tmp_path / name, CURVES, title="t", metric="image AUROC")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_missing_folder_is_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        plots.roc(tmp_path / "absent/x.png", np.array([True, False]), np.array([1.0, 0.0]), title="t", auroc=1.0)


def test_nothing_is_left_in_the_home_folder(tmp_path):
    home, script = (
        tmp_path / "home",
        "\n".join(
            (
                "import sys; from pathlib import Path; from flawline.benchmarks import plots",
                "plots.accuracy_against_dimension(Path(sys.argv[1]), [plots.Curve('a', [8], [1])], title='t', "
                "metric='m')",
            )
        ),
    )
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG", "MPL"))}
    command = [sys.executable, "-c", script, str(tmp_path / "x.png")]
    subprocess.run(command, env=environment | {"HOME": str(home)}, check=True)
    drawn(tmp_path / "x.png")
    assert list(home.iterdir()) == []
