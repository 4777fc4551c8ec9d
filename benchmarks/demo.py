"""The main job on real images, step by step: fit, evaluate, stream, measure. `report.py` makes the page of it."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flawline.benchmarks.costs import footprint, stages
from flawline.benchmarks.costs.footprint import Floor
from flawline.benchmarks.costs.stages import Latency
from flawline.benchmarks.costs.ways import ways_of
from flawline.benchmarks.datasets import Item, read_elpv, read_mvtec
from flawline.benchmarks.environment import Environment
from flawline.benchmarks.evaluation import Evaluation, Scored, evaluate, score_items
from flawline.benchmarks.jl import study
from flawline.export.fit import FitOptions, fit_bundle
from flawline.runtime import Detector
from flawline.runtime.bundle import Bundle, read
from flawline.runtime.cameras import open_source
from flawline.runtime.engines import fastest_engine
from flawline.runtime.errors import InputError
from flawline.runtime.files import write_whole
from flawline.runtime.images import read_image
from flawline.runtime.progress import progress
from flawline.runtime.stream import Defect, Event, JsonLinesSink, Summary
from flawline.runtime.stream import run as run_stream

MARKER = ".flawline-demo"
OUTPUTS = (
    "dataset",
    "web",
    "bundle",
    "plots",
    "stream.jsonl",
    "evaluation.json",
    "latency.json",
    "jl.json",
    "report.html",
)
CELLS = "mono"
FIT_IMAGES, CALIBRATION_IMAGES = 300, 100
SPLIT_SEED = 0
WEB_GOOD, WEB_DEFECTIVE = 48, 12
CELL_LINES = 300
LINE_RATE = 3000
LATENCY_FRAMES, LATENCY_RUNS = 64, 200

Say = Callable[[str], None]


@dataclass(frozen=True)
class Streamed:
    """What came of the stream.

    Attributes:
        summary: Its account.
        kinds: Label of each frame of the web, in order.
        rejected: Frames that were rejected.
        line_rate: Lines per second that were asked for.
    """

    summary: Summary
    kinds: tuple[str, ...]
    rejected: frozenset[int]
    line_rate: float

    @property
    def false_rejects(self) -> int:
        """Good frames that were rejected."""
        return sum(self.kinds[frame] == "good" for frame in self.rejected)

    @property
    def misses(self) -> int:
        """Defective frames that passed."""
        return sum(kind != "good" and frame not in self.rejected for frame, kind in enumerate(self.kinds))


@dataclass(frozen=True)
class Demo:
    """All that the demo found out.

    Attributes:
        folder: Where everything lies.
        terms: Licence of the images.
        bundle: The fitted detector.
        scored: Every test image.
        evaluation: Accuracy on them.
        streamed: The web.
        latency: Time of a frame on one thread.
        floor: The least that its kernel could take.
        peak_memory_bytes: Of `flawline score` with the bundle.
        jl: A short study of projections.
        environment: The machine.
    """

    folder: Path
    terms: str
    bundle: Bundle
    scored: list[Scored]
    evaluation: Evaluation
    streamed: Streamed
    latency: list[Latency]
    floor: Floor
    peak_memory_bytes: int
    jl: study.Outcome
    environment: Environment


class _Collector:
    """A sink that remembers which frames were rejected."""

    def __init__(self) -> None:
        self.rejected: set[int] = set()

    def emit(self, event: Event) -> None:
        if isinstance(event, Defect) and isinstance(event.frame, int):
            self.rejected.add(event.frame)

    def close(self) -> None:
        """Nothing is held."""


def prepare(folder: Path) -> None:
    """Makes the folder, or empties one that an earlier demo made; files of others in it stay.

    Raises:
        InputError: The folder holds something and no demo made it.
    """
    is_ours = (folder / MARKER).is_file()
    if folder.exists() and not is_ours and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and was not made by this demo; choose another --out or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / MARKER, b"Made by `flawline demo`, which replaces its own files here when it runs again.\n")
    for name in OUTPUTS:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def write_dataset(folder: Path) -> str:
    """Writes solar cells in the MVTec layout: train/good, test/good and test/defective.

    Returns:
        The licence of the images.

    Raises:
        MissingExtraError: The package with the images is not installed.
    """
    cells = read_elpv(CELLS)
    split = cells.split(FIT_IMAGES, CALIBRATION_IMAGES, SPLIT_SEED)
    targets = [("train/good", path) for path in (*split.fit, *split.calibration)]
    targets += [(f"test/{item.kind}", item.path) for item in split.test]
    for name in {name for name, _ in targets}:
        (folder / name).mkdir(parents=True)
    for name, path in targets:
        shutil.copyfile(path, folder / name / path.name)
    return cells.terms or "unknown"


def fit(dataset: Path, bundle: Path, threads: int, say: Say) -> Bundle:
    """Fits the default detector on the good cells."""
    options = FitOptions(calibration_images=CALIBRATION_IMAGES, threads=threads)
    return fit_bundle(sorted((dataset / "train" / "good").iterdir()), bundle, options, say)


def measure_accuracy(bundle: Path, dataset: Path, threads: int) -> tuple[list[Scored], Evaluation]:
    """Scores every test image."""
    items = read_mvtec(dataset).test
    with Detector.open(bundle, threads=threads) as detector:
        scored = list(progress(score_items(detector, items), total=len(items), label="scoring"))
        return scored, evaluate(scored, detector.threshold)


def write_web(items: Sequence[Item], folder: Path) -> tuple[str, ...]:
    """Lays test cells one behind the other, in an order that was drawn: mostly good ones, as on a line.

    Returns:
        The label of each.
    """
    good = [item for item in items if not item.is_defective]
    defective = [item for item in items if item.is_defective]
    chosen = [*_draw(good, WEB_GOOD, 1), *_draw(defective, WEB_DEFECTIVE, 2)]
    web = _draw(chosen, len(chosen), 3)
    folder.mkdir()
    for number, item in enumerate(web):
        shutil.copyfile(item.path, folder / f"{number:03d}{item.path.suffix}")
    return tuple(item.kind for item in web)


def stream(bundle: Path, web: Path, events: Path, kinds: tuple[str, ...]) -> Streamed:
    """Streams the web at a line rate, one cell per frame, and writes the events as JSON lines."""
    collector = _Collector()
    with (
        Detector.open(bundle) as detector,
        closing(open_source(f"replay:{web}?line_rate={LINE_RATE}&block=100")) as source,
        events.open("wb") as file,
    ):
        summary = run_stream(source, detector, [collector, JsonLinesSink(file)], frame_lines=CELL_LINES)
    return Streamed(summary, kinds, frozenset(collector.rejected), LINE_RATE)


def measure_latency(bundle: Path, items: Sequence[Item]) -> tuple[list[Latency], Floor, int]:
    """Times the detector on one thread; see `bench latency`."""
    frames = [read_image(item.path) for item in _draw(items, LATENCY_FRAMES, 4)]
    opened = read(bundle)
    (way,) = ways_of(bundle, opened.manifest.network.precision, [fastest_engine(opened, threads=1)])
    measured, _ = stages.measure([way], frames, threads=1, runs=LATENCY_RUNS)
    return measured, footprint.floor(opened, threads=1), footprint.peak_memory_bytes(way, items[0].path)


def measure_projections(threads: int, say: Say) -> study.Outcome:
    """A short `bench jl` on the same cells; timed on one thread, as the detector is."""
    asked = study.Study(data=f"elpv-{CELLS}", threads=threads, cost_threads=1)
    return study.run(study.quick(asked), say)


def _draw(items: Sequence[Item], count: int, seed: int) -> list[Item]:
    order = np.argsort(np.random.Philox(key=seed).random_raw(len(items)), kind="stable")
    return [items[index] for index in order[:count]]
