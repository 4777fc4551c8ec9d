"""What holds for every engine: the same features, the same buffers, the same end."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from flawline.runtime.backends import installed
from flawline.runtime.errors import EngineError, FlawlineError, InputError

OBJECTS_BYTES = 40_000  # what the interpreter keeps for reuse


def frames(backend, seed=0):
    return np.random.default_rng(seed).integers(0, 256, backend.input.shape, np.uint8)


def features(backend, pixels):
    backend.input[...] = pixels
    for output in backend.outputs:
        output.fill(np.nan)
    backend.infer()
    return [output.copy() for output in backend.outputs]


def relative_errors(received, reference):
    pairs = zip(received, reference, strict=True)
    return [float(np.linalg.norm(got - want) / np.linalg.norm(want)) for got, want in pairs]


def both_or_skip():
    if len(installed()) < 2:
        pytest.skip("only one engine is installed")


def bf16_or_skip(network):
    # Asked of the processor, not of the backend: one that wrongly refuses must fail here.
    if "avx512_bf16" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor does not compute in bf16")
    return network("openvino", precision="bf16")


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("threads", [1, 2])
def test_engines_give_the_same_features(network, batch, threads):
    both_or_skip()
    reference = network("onnxruntime", batch=batch)
    other = network("openvino", batch=batch, threads=threads)
    pixels = frames(reference)
    errors = relative_errors(features(other, pixels), features(reference, pixels))
    assert len(errors) == 3
    assert max(errors) < 1e-5


def test_bf16_is_near_fp32_and_is_not_fp32(network):
    both_or_skip()
    rounded, reference = bf16_or_skip(network), network("onnxruntime")
    pixels = frames(reference)
    errors = relative_errors(features(rounded, pixels), features(reference, pixels))
    assert min(errors) > 1e-4
    assert max(errors) < 0.05


def test_a_frame_scores_alike_wherever_it_is_in_a_batch(engine, network):
    one, three = network(engine), network(engine, batch=3)
    pixels = frames(three)
    together = features(three, pixels)
    for index in range(3):
        alone = features(one, pixels[index : index + 1])
        assert max(relative_errors([each[index : index + 1] for each in together], alone)) < 1e-5


def test_features_repeat_bit_for_bit(engine, network):
    backend = network(engine, threads=2)
    pixels = frames(backend)
    first = features(backend, pixels)
    features(backend, frames(backend, seed=1))
    for again, before in zip(features(backend, pixels), first, strict=True):
        np.testing.assert_array_equal(again, before)


def test_buffers_stay_where_they_are(engine, network):
    backend = network(engine)
    pixels, finest, *_ = buffers = [backend.input, *backend.outputs]
    addresses = [buffer.ctypes.data for buffer in buffers]
    seen = set()
    for grey in range(100):
        # By the names of before the first frame: an engine that wrote elsewhere would leave the same numbers here.
        pixels.fill(grey)
        backend.infer()
        seen.add(float(finest.sum()))
    assert len(seen) == 100
    assert [buffer.ctypes.data for buffer in (backend.input, *backend.outputs)] == addresses


def test_the_engine_works_in_our_buffers_and_not_in_copies(network):
    if "openvino" not in installed():
        pytest.skip("openvino is not installed")
    backend = network("openvino")
    request = backend._request
    assert request.get_input_tensor(0).data.ctypes.data == backend.input.ctypes.data
    for index, output in enumerate(backend.outputs):
        assert request.get_output_tensor(index).data.ctypes.data == output.ctypes.data


def test_frames_leave_no_memory_behind(engine, network):
    backend = network(engine)
    for _ in range(20):
        backend.infer()
    resident = resident_bytes()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(500):
            backend.infer()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < OBJECTS_BYTES
    assert after - before < OBJECTS_BYTES
    # One copy of the finest map left behind per frame would be 10 MB.
    assert resident_bytes() - resident < 4 << 20


def resident_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def test_a_closed_engine_says_so_and_leaves_its_last_features(engine, network):
    backend = network(engine)
    kept = features(backend, frames(backend))
    backend.close()
    backend.close()
    with pytest.raises(FlawlineError, match="the engine is closed"):
        backend.infer()
    np.testing.assert_array_equal(backend.outputs[0], kept[0])


def test_a_closed_engine_gives_its_memory_back(engine, network):
    network(engine).close()
    before = resident_bytes()
    for _ in range(5):
        network(engine).close()
    assert resident_bytes() - before < 32 << 20


@pytest.mark.parametrize(
    ("engine_name", "options", "message"),
    [
        ("abacus", {}, "backend 'abacus' is unknown; expected one of onnxruntime, openvino"),
        ("auto", {}, "backend 'auto' is unknown; expected one of onnxruntime, openvino"),
        ("onnxruntime", {"threads": 0}, "threads is 0; expected 1 or more"),
        ("onnxruntime", {"precision": "fp12"}, "precision 'fp12' is unknown; expected one of fp32, fp16"),
        ("onnxruntime", {"precision": "bf16"}, "onnxruntime does not compute in precision 'bf16'; .*openvino"),
        ("openvino", {"precision": "int8"}, "openvino does not compute in precision 'int8'; .*onnxruntime"),
    ],
)
def test_what_no_engine_can_do_is_refused(network, engine_name, options, message):
    with pytest.raises(InputError, match=message):
        network(engine_name, **options)


def test_a_processor_without_bf16_refuses_it_in_a_line(network, monkeypatch):
    if "openvino" not in installed():
        pytest.skip("openvino is not installed")
    from flawline.runtime.backends.openvino import openvino

    # The one thing that cannot be had on a machine that has bf16 is a machine that has not.
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32", "INT8"])
    with pytest.raises(EngineError, match="this processor cannot compute in bf16") as caught:
        network("openvino", precision="bf16")
    assert "\n" not in str(caught.value)


def test_an_installation_that_does_not_start_is_an_engine_that_fails(network, monkeypatch):
    if "openvino" not in installed():
        pytest.skip("openvino is not installed")
    network("openvino").close()

    def broken():
        raise RuntimeError("Cannot load library libopenvino_intel_cpu_plugin.so")

    # A fake of the fault: an installation that lacks a library.
    monkeypatch.setattr("flawline.runtime.backends.openvino.openvino.Core", broken)
    with pytest.raises(EngineError, match="OpenVINO cannot be started: Cannot load library"):
        network("openvino")
