"""Small webs, and detectors fitted on them."""

import numpy as np
import onnx
import onnxruntime

from flawline.__main__ import main
from flawline.calibration.statistics import StatisticsOptions
from flawline.calibration.web_pieces import read_pieces, split_pieces
from flawline.export.fit_web import fit_web_bundle
from flawline.export.options import FitOptions, WebOptions
from flawline.runtime import kernels
from flawline.runtime.images import write_image

STRIP, TILE, WIDTH, MAP_STRIDE, STRIDE = 32, 64, 150, 4, 8
TABLE, MARGIN = 34, 6


def weave(lines, width, seed):
    """A regular weave with noise: uint8 (lines, width)."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:lines, :width]
    values = 130 + 20 * np.sin(x * 0.8) + 15 * np.cos(y * 0.9) + generator.normal(0, 8, (lines, width))
    return np.clip(values, 0, 255).astype(np.uint8)


def pieces_of_web(folder, count=14, lines=96, width=WIDTH, *, table=0):
    folder.mkdir()
    for number in range(count):
        pixels = weave(lines - 10 * (number % 2), width, number)
        if table:
            pixels[:, :table] = 20 + (pixels[:, :table] >> 4)
        write_image(folder / f"{number:02}.png", pixels)
    return folder


def flaw(pixels, line, x):
    """Twelve lines and pixels of black and white."""
    pixels[line : line + 12, x : x + 12] = np.random.default_rng(0).choice([0, 255], (12, 12))


def fit(network, good, out, *, statistics=None, web=None, **options):
    given = {
        "backbone": str(network),
        "layers": ("fine", "coarse"),
        "image_size": 64,
        "mean": (128.0,),
        "std": (40.0,),
        "projection": "none",
        "smoothing_px": 6.0,
        "false_reject_rate": 0.1,
        "threads": 1,
    }
    statistics = StatisticsOptions(**{"tie": "global", "factors": "fp32", **(statistics or {})})
    chosen = WebOptions(**{"strip_lines": STRIP, "tile_px": TILE, "margin_px": None, **(web or {})})
    return fit_web_bundle(str(good), out, FitOptions(**{**given, **options}, statistics=statistics), chosen)


def held_out_and_fitted(good, bundle):
    fitted, held_out = split_pieces(
        read_pieces(str(good)), STRIP, false_reject_rate=bundle.manifest.threshold.false_reject_rate, seed=0
    )
    return held_out, fitted


def embeddings_of(network, piece):
    """Embeddings of a piece from one run of the network over all of it, with context beyond its ends: (rows, w, 16)."""
    height, width = piece.shape
    edge = 4 * STRIDE
    padded = np.pad(piece, ((edge, edge + -height % STRIDE), (edge, edge + -width % STRIDE)), mode="reflect")
    model = onnx.load(network)
    model.graph.output.insert(0, onnx.ValueInfoProto(name="fine"))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    image = ((padded.astype(np.float32) - 128) / 40)[None, None].repeat(3, axis=1)
    fine, coarse = session.run(None, {"image": image})
    size = fine.shape[2:]
    padded_maps = [
        np.pad(fine, ((0, 0), (0, 8), (0, 0), (0, 0))),
        np.pad(coarse, ((0, 0), (8, 0), (0, 0), (0, 0))),
    ]
    values = kernels.embeddings([np.ascontiguousarray(scale) for scale in padded_maps], size).reshape(*size, 16)
    first = edge // MAP_STRIDE
    return values[first : first - -height // MAP_STRIDE, first : first - -width // MAP_STRIDE]


def command(network, good, out, *more):
    options = "--strip-lines 32 --tile 64 --false-reject-rate 0.1 --no-edges --layers fine,coarse --threads 1"
    return main(["fit", str(good), "--web", "--out", str(out), "--backbone", str(network), *options.split(), *more])


def refused(capsys, status, message):
    captured = capsys.readouterr()
    assert (status, captured.out) == (2, "")
    assert message in captured.err.splitlines()[-1]
