"""Bundles of small networks for webs, webs to score with them, and streams of these."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from flawline.runtime import bundle, kernels
from flawline.runtime.bundle import Web
from flawline.runtime.cameras import BlockInfo, Status
from flawline.runtime.kernels import Gaussians
from flawline.runtime.stream import Defect, DefectSink, Event, Summary
from flawline.runtime.stream.web_pipeline import WebStream
from flawline.runtime.web.inspector import WebInspector
from flawline.runtime.web.odometer import Odometer

HALO, RING, STRIDE, MAP_STRIDE, DIMENSION = 24, 8, 8, 4, 5
STRIP, TILE = 32, 64
SIGMA = 1.2


def network(channels: int, crop: int, *, fragile: bool = False) -> bytes:
    """uint8 (N, H, W, C) to float32 (N, 5, h, w) at strides 4 and 8, each cut off by `crop` pixels on all sides.

    A fragile one makes NaN of pixels of 255.
    """
    random = np.random.default_rng(7)
    nodes = [
        helper.make_node("Cast", ["frame"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["small"]),
        helper.make_node("Transpose", ["sound" if fragile else "small"], ["x0"], perm=[0, 3, 1, 2]),
    ]
    constants = {"scale": np.float32(1 / 64), "axes": np.array([2, 3])}
    if fragile:
        constants |= {"white": np.float32(255), "nought": np.float32(0)}
        nodes[2:2] = [
            helper.make_node("Sub", ["white", "float"], ["room"]),
            helper.make_node("Div", ["nought", "room"], ["fault"]),
            helper.make_node("Add", ["small", "fault"], ["sound"]),
        ]
    widths = (channels, 6, 8, 8)
    for i in range(3):
        constants[f"w{i}"] = random.normal(0, 0.4, (widths[i + 1], widths[i], 3, 3)).astype(np.float32)
        nodes += [
            helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"c{i}"], strides=[2, 2], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"c{i}"], [f"x{i + 1}"]),
        ]
    for number, (layer, stride) in enumerate(((2, 4), (3, 8))):
        constants[f"p{number}"] = random.normal(0, 0.5, (DIMENSION, 8, 1, 1)).astype(np.float32)
        constants[f"from{number}"] = np.array([crop // stride] * 2)
        constants[f"to{number}"] = np.array([-crop // stride] * 2 if crop else [1 << 30] * 2)
        nodes += [
            helper.make_node("Slice", [f"x{layer}", f"from{number}", f"to{number}", "axes"], [f"s{number}"]),
            helper.make_node("Conv", [f"s{number}", f"p{number}"], [f"features_{number}"]),
        ]
    outputs = [
        helper.make_tensor_value_info(f"features_{n}", TensorProto.FLOAT, ["N", DIMENSION, f"h{n}", f"w{n}"])
        for n in (0, 1)
    ]
    frame = helper.make_tensor_value_info("frame", TensorProto.UINT8, ["N", "H", "W", channels])
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "web", [frame], outputs, initializer=initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def web_bundle(
    path: Path,
    *,
    channels: int = 1,
    tie: str = "global",
    tile: int = TILE,
    fragile: bool = False,
    threshold: float = 9.0,
    **web: object,
) -> bundle.Bundle:
    """A bundle for webs, with Gaussians that are random but fixed, and a threshold that good texture seldom exceeds."""
    window = (STRIP + 2 * HALO, tile + 2 * HALO)
    size = ((STRIP + 2 * RING) // MAP_STRIDE, (tile + 2 * RING) // MAP_STRIDE)
    count = 1 if tie == "global" else size[1]
    random = np.random.default_rng(3)
    factors = np.tril(random.normal(0, 0.3, (count, 1, DIMENSION, DIMENSION))) + 1.5 * np.eye(DIMENSION)
    manifest = bundle.PadimManifest(
        input=bundle.Input(height=window[0], width=window[1], channels=channels, interpolation="linear"),
        network=bundle.Network(
            name="small",
            layers=["x2", "x3"],
            weights=bundle.Weights(origin="random", sha256="0" * 64, random=True),
            precision="fp32",
            input="frame",
            outputs=[
                bundle.Output(name="features_0", height=size[0], width=size[1]),
                bundle.Output(name="features_1", height=size[0] // 2, width=size[1] // 2),
            ],
            total_stride=STRIDE,
        ),
        projection=bundle.Projection(
            kind="none", seed=0, input_dimension=DIMENSION, dimension=DIMENSION, generator="philox4x64"
        ),
        map=bundle.Map(height=size[0], width=size[1], upsampling="bilinear", sigma=SIGMA),
        gaussian=bundle.Gaussian(
            tie=tie,
            count=count,
            components=1,
            epsilon=0.0,
            epsilon_relative=False,
            shrinkage=None,
            factors="fp32",
            block_rows=8,
        ),
        threshold=bundle.Threshold(false_reject_rate=0.5, score=threshold, calibration_images=3),
        fit=bundle.Fit(images=2, calibration_images=3, group_by=None, seed=0, sources_sha256="0" * 64),
        web=Web(halo=HALO, ring=RING, **web),
        parity=None,
        golden=bundle.GoldenFacts(relative_tolerance=1e-3),
    )
    assignment = np.zeros(size[0] * size[1]) if tie == "global" else np.tile(np.arange(size[1]), size[0])
    statistics = {
        "means": random.normal(0, 0.5, (count, 1, DIMENSION)).astype(np.float32),
        "factors": kernels.pack(factors.astype(np.float32), np.float32),
        "scales": np.ones((count, 1), np.float32),
        "assignment": assignment.astype(np.int32),
        "calibration_scores": np.array([7, 8, 8.5], np.float32),
    }
    frame = np.full((*window, 3) if channels == 3 else window, 100, np.uint8)
    golden = [bundle.Golden(frame=frame, score=1.0, map=np.ones(size, np.float32))]
    return bundle.write(path, manifest, network(channels, HALO - RING, fragile=fragile), statistics, golden)


def reference_distances(opened: bundle.Bundle, pixels: np.ndarray) -> np.ndarray:
    """Distances of the whole web by one run of the network that is not cut off, and the textbook kernel: (rows, w)."""
    height, width = pixels.shape[:2]
    pads = [(2 * HALO, 2 * HALO + -height % STRIDE), (2 * HALO, 2 * HALO + -width % STRIDE)] + [(0, 0)] * (
        pixels.ndim - 2
    )
    padded = np.pad(pixels, pads, mode="reflect")
    frame = padded[None, ..., None] if pixels.ndim == 2 else padded[None]
    session = onnxruntime.InferenceSession(
        network(opened.manifest.input.channels, 0), providers=["CPUExecutionProvider"]
    )
    maps = session.run(None, {"frame": frame})
    size = maps[0].shape[2:]
    count = opened.manifest.gaussian.count
    edge = 2 * HALO // MAP_STRIDE
    rows, columns = -(-height // MAP_STRIDE), -(-width // MAP_STRIDE)
    vectors = kernels.embeddings(maps, size).reshape(*size, -1)[edge : edge + rows, edge : edge + columns]
    if count == 1:
        assignment = np.zeros(rows * columns, np.int32)
    else:
        assignment = np.tile(np.arange(columns, dtype=np.int32) + RING // MAP_STRIDE, rows)
    gaussians = Gaussians(*(np.asarray(opened.statistics[name]) for name in ("means", "factors", "scales")), assignment)
    vectors = np.ascontiguousarray(vectors.reshape(1, rows * columns, -1))
    return kernels.mahalanobis(vectors, gaussians, implementation="reference").reshape(rows, columns)


def texture(lines: int, width: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """A web with a regular weave and noise: uint8 (lines, width[, 3])."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:lines, :width]
    shape = (lines, width) if channels == 1 else (lines, width, channels)
    weave = 110 + 20 * np.sin(x * 0.8) + 15 * np.cos(y * 0.9)
    values = (weave if channels == 1 else weave[..., None]) + random.normal(0, 8, shape)
    return np.clip(values, 0, 255).astype(np.uint8)


FLAW_PX, FLAW_THRESHOLD = 24, 5.0
"""Of `flawed`: size of a flaw, and a threshold that each exceeds in one region and good texture does not, with `web_bundle`."""


def flawed(pixels: np.ndarray, places: Iterable[tuple[int, int]]) -> np.ndarray:
    """The web with patches of black and white noise at (line, pixel); no pixel is 255."""
    pixels, random = pixels.copy(), np.random.default_rng(1)
    for y, x in places:
        pixels[y : y + FLAW_PX, x : x + FLAW_PX] = random.integers(0, 2, (FLAW_PX, FLAW_PX)) * 254
    return pixels


def pixel_bundle(path: Path) -> bundle.Bundle:
    """A bundle for grey webs whose anomaly map is the web itself, pixel by pixel; its threshold is 127.5."""
    nodes = [
        helper.make_node("Cast", ["frame"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["whole"], perm=[0, 3, 1, 2]),
        helper.make_node("Slice", ["whole", "from", "to", "axes"], ["features_0"]),
    ]
    graph = helper.make_graph(
        nodes,
        "pixels",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, ["N", "H", "W", 1])],
        [helper.make_tensor_value_info("features_0", TensorProto.FLOAT, ["N", 1, "h", "w"])],
        initializer=[
            numpy_helper.from_array(np.array(value), name)
            for name, value in {"from": [HALO] * 2, "to": [-HALO] * 2, "axes": [2, 3]}.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    manifest, replace = web_bundle(path.with_suffix(".from")).manifest, msgspec.structs.replace
    manifest = replace(
        manifest,
        network=replace(
            manifest.network,
            layers=["web"],
            outputs=[bundle.Output(name="features_0", height=STRIP, width=TILE)],
            total_stride=1,
        ),
        projection=replace(manifest.projection, input_dimension=1, dimension=1),
        map=replace(manifest.map, height=STRIP, width=TILE, sigma=0.0),
        threshold=replace(manifest.threshold, score=127.5),
        web=Web(halo=HALO, ring=0),
    )
    statistics = {
        "means": np.zeros((1, 1, 1), np.float32),
        "factors": kernels.pack(np.ones((1, 1, 1, 1), np.float32), np.float32),
        "scales": np.ones((1, 1), np.float32),
        "assignment": np.zeros(STRIP * TILE, np.int32),
        "calibration_scores": np.array([100, 110, 120], np.float32),
    }
    frame = np.full((STRIP + 2 * HALO, TILE + 2 * HALO), 7, np.uint8)
    golden = [bundle.Golden(frame=frame, score=7.0, map=np.full((STRIP, TILE), 7, np.float32))]
    return bundle.write(path, manifest, model.SerializeToString(), statistics, golden)


class ListSink:
    """Keeps events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        pass

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]


class ArraySource:
    """An open source that gives the reads of a script; camera line n is row n of an array.

    Args:
        pixels: uint8 (lines, width[, 3]).
        script: What is read, then END; an exception is raised. None for all lines in blocks.
        block_lines: Most lines of a block.
    """

    spec = "array"

    def __init__(
        self, pixels: np.ndarray, script: Iterable[BlockInfo | Exception] | None = None, block_lines: int = 64
    ) -> None:
        if script is None:
            script = [
                BlockInfo(Status.OK, line, min(block_lines, len(pixels) - line), line * 1000)
                for line in range(0, len(pixels), block_lines)
            ]
        self.width = pixels.shape[1]
        self.channels = 1 if pixels.ndim == 2 else 3
        self.block_lines = block_lines
        self.line_rate = None
        self.counters = {"lines_sent": 0}
        self._pixels = pixels
        self._script = iter(script)

    def open(self) -> None:
        pass

    def read(self, into: np.ndarray, timeout_s: float) -> BlockInfo:
        step = next(self._script, BlockInfo(Status.END))
        if isinstance(step, Exception):
            raise step
        if step.status is Status.OK:
            into[: step.lines] = self._pixels[step.first_line : step.first_line + step.lines]
        self.counters["lines_sent"] = max(self.counters["lines_sent"], step.first_line + step.lines)
        return step._replace(arrival_time_ns=time.monotonic_ns())

    def close(self) -> None:
        pass


def stream_web(
    opened: bundle.Bundle,
    source: ArraySource,
    sinks: Sequence[DefectSink],
    *,
    strip_lines: int | None = None,
    inspector_type: type[WebInspector] = WebInspector,
    **settings: object,
) -> Summary:
    """Streams a web through a bundle with ONNX Runtime."""
    chosen = {
        "threshold": opened.manifest.threshold.score,
        "p_value": opened.p_value,
        "odometer": Odometer(mm_per_line=1.0),
        "max_defect_lines": 4096,
    }
    with inspector_type(opened, source.width, strip_lines=strip_lines, backend="onnxruntime") as inspector:
        return WebStream(inspector=inspector, sinks=sinks, **chosen | settings).run(source)


def balance(summary: Summary) -> None:
    """The identity that must hold however a stream went."""
    assert summary.lines_received + sum(summary.lines_lost.values()) == summary.lines_sent
    assert summary.lines_sent == summary.source_counters["lines_sent"]


def told(sink: ListSink) -> list[dict[str, object]]:
    """The defects that a sink was told, as they are written, but for times."""
    times = ("arrived", "camera_time_ns", "latency_ms", "late")
    defects = map(msgspec.to_builtins, sink.of(Defect))
    return [{name: value for name, value in defect.items() if name not in times} for defect in defects]
