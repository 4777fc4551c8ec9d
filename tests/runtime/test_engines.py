"""Which engine `auto` takes for a bundle."""

import itertools
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from flawline.__main__ import main
from flawline.runtime import Detector, EngineError, InputError, MissingExtraError
from flawline.runtime import bundle as bundles
from flawline.runtime.backends import installed, selection
from flawline.runtime.engines import fastest_engine, try_engines
from flawline.runtime.extras import LazyModule
from tests.runtime import reconstructions

MISSING = LazyModule("openvino_that_is_not_there", "pip install 'flawline[openvino]'")


def tried(path: Path) -> dict[str, selection.Candidate]:
    return {candidate.name: candidate for candidate in try_engines(bundles.read(path), threads=1)}


def test_every_engine_of_the_precision_is_tried_and_one_is_chosen(tiny_bundle: Path) -> None:
    candidates = tried(tiny_bundle)
    assert list(candidates) == ["onnxruntime", "openvino", "tensorrt"]
    chosen = [name for name, candidate in candidates.items() if candidate.verdict == "chosen"]
    assert len(chosen) == 1
    with Detector.open(tiny_bundle, backend=chosen[0]) as detector:
        assert detector.backend == chosen[0]


def test_an_engine_that_gives_another_map_is_not_chosen_though_its_score_is_right(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    opened = bundles.read(tiny_bundle)
    golden = []
    for item in opened.golden:
        changed = item.map.copy()
        changed.flat[changed.argmin()] = item.score
        golden.append(bundles.Golden(item.frame, item.score, changed))
    written = bundles.write(tmp_path / "other.flaw", opened.manifest, opened.features, opened.statistics, golden)
    candidates = tried(written.path)
    assert {candidates[engine].verdict for engine in installed()} == {"golden frames differ"}
    with pytest.raises(EngineError, match="no engine gives the golden scores") as caught:
        Detector.open(written.path)
    assert "--backend takes one all the same" in str(caught.value)
    with Detector.open(written.path, backend="onnxruntime") as detector:
        assert detector(opened.golden[0].frame).score == pytest.approx(opened.golden[0].score)


def test_an_engine_that_is_missing_leaves_the_others(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flawline.runtime.backends.openvino.openvino", MISSING)
    candidates = tried(tiny_bundle)
    verdicts = {name: candidate.verdict for name, candidate in candidates.items()}
    assert (verdicts["onnxruntime"], verdicts["openvino"]) == ("chosen", "not installed")
    assert fastest_engine(bundles.read(tiny_bundle), threads=1) == "onnxruntime"


def test_a_precision_whose_only_engine_is_missing_names_its_extra(
    make_variant: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_variant("bf16")
    monkeypatch.setattr("flawline.runtime.backends.openvino.openvino", MISSING)
    with pytest.raises(MissingExtraError, match=r"flawline\[openvino\]"):
        Detector.open(path, precision="bf16")


def test_an_unknown_engine_is_refused_with_the_names_of_all(tiny_bundle: Path) -> None:
    with pytest.raises(
        InputError, match="backend 'foo' is unknown; expected auto or one of onnxruntime, openvino, tensorrt"
    ):
        Detector.open(tiny_bundle, backend="foo")


def test_an_engine_of_another_precision_is_refused(make_variant: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match="onnxruntime does not compute in precision 'bf16'"):
        Detector.open(make_variant("bf16"), precision="bf16", backend="onnxruntime")


def test_a_precision_that_the_bundle_lacks_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(InputError, match="the bundle holds no network in int8; expected fp32, or add it with"):
        Detector.open(tiny_bundle, precision="int8")


def test_floats_cannot_be_added_to_a_bundle_without_them(tiny_bundle: Path) -> None:
    import msgspec

    manifest = bundles.read(tiny_bundle).manifest
    alone = msgspec.structs.replace(manifest, network=msgspec.structs.replace(manifest.network, precision="int8"))
    with pytest.raises(InputError, match="no network in fp32; expected int8, or fit the product again, in fp32"):
        alone.select("fp32")


def test_verify_names_what_it_tried_and_what_not(
    make_variant: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_variant("fp16")
    assert main(["verify", str(path), "--backend", "onnxruntime"]) == 0
    assert capsys.readouterr().out.endswith("\nVERIFIED in fp32 on onnxruntime; not tried: --precision fp16\n")
    assert main(["verify", str(path), "--backend", "onnxruntime", "--precision", "fp16"]) == 0
    assert capsys.readouterr().out.endswith("\nVERIFIED in fp16 on onnxruntime; not tried: --precision fp32\n")


def with_saliency(*nodes: onnx.NodeProto, size: tuple[int, int] = reconstructions.SIZE) -> bytes:
    """A network of a reconstruction whose saliency goes through further nodes, from "plain" to "saliency"."""
    model = onnx.load_from_string(reconstructions.graph(size=size))
    (last,) = (node for node in model.graph.node if node.output[0] == "saliency")
    last.output[0] = "plain"
    model.graph.node.extend(nodes)
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return model.SerializeToString()


def test_an_engine_that_cannot_make_the_map_that_is_asked_for_is_not_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An operator of ONNX Runtime's own, which adds nothing.
    node = onnx.helper.make_node("SampleOp", ["plain"], ["saliency"], domain="com.microsoft")
    bundle = reconstructions.reconstruction_bundle(tmp_path / "made.flaw", features=with_saliency(node))
    # As where OpenVINO is the clearly faster one.
    monkeypatch.setattr(selection, "_CLEARLY_FASTER", 1e9)
    assert fastest_engine(bundle.with_map("error"), threads=1) == "openvino"
    candidates = {candidate.name: candidate for candidate in try_engines(bundle.with_map("saliency"), threads=1)}
    assert candidates["onnxruntime"].verdict == "chosen"
    assert candidates["openvino"].verdict == "refused"
    assert "SampleOp" in candidates["openvino"].detail
    with Detector.open(bundle.path, map="saliency") as detector:
        assert detector.backend == "onnxruntime"


def test_an_engine_whose_scores_by_the_map_that_is_asked_for_are_not_finite_is_not_chosen(tmp_path: Path) -> None:
    # -plain - 1 has no logarithm.
    negated = onnx.helper.make_node("Neg", ["plain"], ["negative"])
    below = onnx.helper.make_node("Sub", ["negative", "share"], ["below"])
    logarithm = onnx.helper.make_node("Log", ["below"], ["saliency"])
    features = with_saliency(negated, below, logarithm)
    bundle = reconstructions.reconstruction_bundle(tmp_path / "made.flaw", features=features)
    assert fastest_engine(bundle, threads=1) in installed()
    with pytest.raises(EngineError, match="the score is nan"):
        fastest_engine(bundle.with_map("saliency"), threads=1)


def test_engines_are_timed_at_the_map_that_is_asked_for(tmp_path: Path) -> None:
    # Work for the saliency alone: a hundred sines of every pixel.
    names = ["plain", *(f"sine{index}" for index in range(99)), "saliency"]
    nodes = [onnx.helper.make_node("Sin", [source], [target]) for source, target in itertools.pairwise(names)]
    size = (192, 160)
    bundle = reconstructions.reconstruction_bundle(
        tmp_path / "made.flaw", size=size, features=with_saliency(*nodes, size=size)
    )
    times = {
        kind: next(
            candidate.milliseconds
            for candidate in try_engines(bundle.with_map(kind), threads=1)
            if candidate.name == "onnxruntime"
        )
        for kind in ("error", "saliency")
    }
    assert times["saliency"] > 3 * times["error"]


@pytest.fixture
def make_variant(tiny_bundle: Path, tmp_path: Path) -> Callable[[str], Path]:
    """The tiny bundle with its own network and statistics once more, under the name of another precision."""
    import msgspec

    def make(precision: str) -> Path:
        opened = bundles.read(tiny_bundle)
        manifest = opened.manifest
        variant = bundles.PadimVariant(
            features="features.onnx",
            network=msgspec.structs.replace(manifest.network, precision=precision),
            gaussian=manifest.gaussian,
            threshold=manifest.threshold,
            parity=None,
            fidelity=None,
            golden=manifest.golden,
        )
        payload = bundles.Payload(opened.features, opened.statistics, opened.golden)
        return bundles.write(
            tmp_path / "both.flaw",
            msgspec.structs.replace(manifest, variants={precision: variant}),
            *payload,
            variants={precision: payload},
        ).path

    return make
