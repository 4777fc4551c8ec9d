"""The flat field of fit and stream."""

import hashlib
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from flawline.__main__ import main
from flawline.calibration.web_flat_field import read_flat_field
from flawline.calibration.web_pieces import read_pieces
from flawline.runtime import bundle as bundles
from flawline.runtime.images import write_image
from tests.export.web.fits import (
    WIDTH,
    command,
    flaw,
    refused,
    weave,
)


@pytest.fixture(scope="module")
def striped(good, tmp_path_factory):
    """Good web and a flawed one as an uneven camera sees them, its flat field, and both webs with that taken out."""
    folder = tmp_path_factory.mktemp("striped")
    random = np.random.default_rng(8)
    dark, answer = random.integers(0, 20, WIDTH), random.uniform(0.6, 1.0, WIDTH)

    def seen(pixels):
        return np.clip(dark + answer * pixels.astype(np.float64), 0, 255).astype(np.uint8)

    for name, level in (("dark", 0), ("white", 220)):
        write_image(folder / f"{name}.png", seen(np.full((64, WIDTH), level, np.uint8)))
    references = ["--dark", str(folder / "dark.png"), "--white", str(folder / "white.png")]
    assert main(["camera", "flat-field", *references, "--out", str(folder / "camera.flat")]) == 0
    correct = read_flat_field(folder / "camera.flat").corrector((WIDTH,))
    flawed = weave(400, WIDTH, 99)
    flaw(flawed, 190, 60)
    for name in ("raw", "raw_flawed", "even", "even_flawed"):
        (folder / name).mkdir()
    for end, images in (
        ("", {piece.name: piece.load() for piece in read_pieces(str(good))}),
        ("_flawed", {"0.png": flawed}),
    ):
        for name, pixels in images.items():
            lines = seen(pixels)
            write_image(folder / f"raw{end}" / name, lines)
            correct(lines)
            write_image(folder / f"even{end}" / name, lines)
    return folder


def test_a_flat_field_is_taken_out_in_fit_and_stream_alike(network, striped, tmp_path, capsys):
    flat_field = str(striped / "camera.flat")
    raw, even = tmp_path / "raw.flaw", tmp_path / "even.flaw"
    assert command(network, striped / "raw", raw, "--flat-field", flat_field) == 0
    assert command(network, striped / "even", even) == 0
    known, unknown = bundles.read(raw), bundles.read(even)
    assert known.manifest.web.flat_field_sha256 == hashlib.sha256(Path(flat_field).read_bytes()).hexdigest()
    assert unknown.manifest.web.flat_field_sha256 is msgspec.UNSET
    for name, values in unknown.statistics.items():
        np.testing.assert_array_equal(known.statistics[name], values)
    defects = []
    for bundle, web, more in ((raw, "raw_flawed", ["--flat-field", flat_field]), (even, "even_flawed", [])):
        capsys.readouterr()
        source = f"replay:{striped / web}"
        assert main(["stream", str(bundle), "--source", source, "--json", "--backend", "onnxruntime", *more]) == 0
        told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        defects.append([(event["box"], event["peak"]) for event in told if event["type"] == "defect"])
    assert defects[0] == defects[1] != []


def test_a_precision_is_added_with_the_flat_field_of_the_fit_alone(network, striped, tmp_path, capsys):
    flat_field, other = striped / "camera.flat", tmp_path / "other.flat"
    references = ["--dark", str(striped / "dark.png"), "--white", str(next((striped / "even_flawed").iterdir()))]
    assert main(["camera", "flat-field", *references, "--out", str(other)]) == 0
    out, without, added = tmp_path / "web.flaw", tmp_path / "without.flaw", tmp_path / "int8.flaw"
    assert command(network, striped / "raw", out, "--flat-field", str(flat_field)) == 0
    assert command(network, striped / "raw", without) == 0

    def export(bundle, *more):
        capsys.readouterr()
        words = ["--precision", "int8", "--images", str(striped / "raw"), "--out", str(added), *more]
        return main(["export", str(bundle), *words])

    refused(capsys, export(out), "web.flaw was fitted with a flat field; expected --flat-field with the same file")
    refused(capsys, export(out, "--flat-field", str(other)), "web.flaw was fitted with another flat field")
    refused(capsys, export(without, "--flat-field", str(flat_field)), "without.flaw was fitted without a flat field")
    assert not added.exists()
    assert export(out, "--flat-field", str(flat_field)) == 0
    assert bundles.read(added).manifest.web == bundles.read(out).manifest.web
