"""Real workers: our own, the null case, and processes that misbehave."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flawline.benchmarks.peers import worker as worker_module
from flawline.benchmarks.peers.cases import Case, null_case, our_cases
from flawline.benchmarks.peers.environments import worker_command, worker_environment
from flawline.benchmarks.peers.worker import Worker, WorkerError
from flawline.runtime import Detector
from flawline.runtime.images import read_image


def script(code: str) -> Case:
    return Case("peer", "engine", "fp32", (), (sys.executable, "-c", code), 1)


def ours(bundle) -> Case:
    (case,), failures = our_cases([bundle], [("fp32", "onnxruntime")])
    assert failures == []
    return case


def test_our_worker_scores_like_the_detector(frames, colour_bundle, tmp_path):
    with Worker(ours(colour_bundle), frames, threads=1, folder=tmp_path) as worker:
        turn = worker.score([9, 0, 3])
    images = [*sorted(frames.good.iterdir()), *sorted(frames.defective.iterdir())]
    with Detector.open(colour_bundle, threads=1) as detector:
        results = [detector(read_image(images[index])) for index in (9, 0, 3)]
    assert turn.scores.tolist() == [result.score for result in results]
    assert turn.rejected.tolist() == [result.verdict == "reject" for result in results]
    assert turn.taken_ns.min() > 0
    assert turn.cpu_ns > 0
    assert turn.peak_memory_bytes > 10e6


def test_our_worker_imports_nothing_of_the_comparison(frames, colour_bundle, tmp_path):
    case = ours(colour_bundle)
    code = (
        "import runpy, sys; sys.argv = ['worker']\n"
        "try: runpy.run_module('flawline.benchmarks.peers.workers.flawline_score', run_name='__main__')\n"
        "except SystemExit: print(sorted(sys.modules), file=sys.stderr)"
    )
    with Worker(replace(case, command=(sys.executable, "-c", code)), frames, threads=1, folder=tmp_path) as worker:
        worker.score([0])
    modules = next(tmp_path.glob("*.log")).read_text()
    assert "'flawline.runtime.detector'" in modules
    for heavy in ("sklearn", "scipy", "matplotlib", "torch", "'onnx'"):
        assert heavy not in modules


def test_null_case_takes_next_to_nothing(frames, tmp_path):
    with Worker(null_case(), frames, threads=1, folder=tmp_path) as worker:
        turn = worker.score(list(range(frames.count)))
    assert turn.scores.tolist() == [0.0] * frames.count
    assert np.median(turn.taken_ns) < 1_000_000


def test_another_interpreter_finds_the_scripts(frames, tmp_path):
    # As peers run: by a short name, from a folder that is not flawline's.
    command = worker_command(Path(sys.executable), "null_score")
    case = replace(null_case(), command=command, environment=worker_environment(tmp_path))
    with Worker(case, frames, threads=1, folder=tmp_path) as worker:
        assert worker.score([0, 1]).scores.tolist() == [0.0, 0.0]


def test_a_worker_is_told_its_threads(frames, tmp_path):
    code = (
        "import json, os, sys; task = json.loads(input())\n"
        "names = ['OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS']\n"
        "assert [os.environ[name] for name in names] == ['2'] * 3 and task['threads'] == 2\n"
        "assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'\n"
        "print(json.dumps({'ready': True}))"
    )
    Worker(script(code), frames, threads=2, folder=tmp_path).close()


def test_an_engine_that_is_missing_is_named(frames, colour_bundle, tmp_path):
    with pytest.raises(WorkerError, match=r"^flawline warp fp32, fp16 factors: .*'warp'"):
        Worker(replace(ours(colour_bundle), engine="warp"), frames, threads=1, folder=tmp_path)


def test_a_process_that_dies_at_once_is_quoted(frames, tmp_path):
    with pytest.raises(WorkerError, match=r"ended with status 3: out of luck"):
        Worker(script("import sys; sys.stderr.write('out of luck'); sys.exit(3)"), frames, threads=1, folder=tmp_path)


def test_a_process_that_dies_on_a_frame_is_quoted(frames, tmp_path):
    code = "import sys; input(); print('{}', flush=True); input(); sys.stderr.write('bad frame\\n'); sys.exit(4)"
    with Worker(script(code), frames, threads=1, folder=tmp_path) as worker, pytest.raises(WorkerError, match="bad fr"):
        worker.score([0])


def test_an_answer_that_is_no_json_is_quoted(frames, tmp_path):
    with pytest.raises(WorkerError, match=r"answered 'Loading model.*expected a JSON object"):
        Worker(script("input(); print('Loading model')"), frames, threads=1, folder=tmp_path)


def test_silence_ends(frames, tmp_path, monkeypatch):
    monkeypatch.setattr(worker_module, "START_TIMEOUT_S", 0.2)
    monkeypatch.setattr(worker_module, "CLOSE_TIMEOUT_S", 0.2)
    with pytest.raises(WorkerError, match=r"no answer within 0\.2 s"):
        Worker(script("import time; time.sleep(60)"), frames, threads=1, folder=tmp_path)


def test_a_frame_beyond_the_last_is_an_error_and_the_worker_ends(frames, tmp_path):
    worker = Worker(null_case(), frames, threads=1, folder=tmp_path)
    with pytest.raises(WorkerError, match="ended with status"):
        worker.score([frames.count])
    worker.close()
    worker.close()
    with pytest.raises(WorkerError, match="closed"):
        worker.score([0])


def test_what_a_library_prints_does_not_disturb_the_protocol(frames, tmp_path):
    code = (
        "import sys; from flawline.benchmarks.peers.workers.serving import serve\n"
        "def open_scorer(task):\n"
        "    print('Backbone device: cpu')\n"
        "    return lambda frame: (print('scoring') or float(frame.mean()), True)\n"
        "sys.exit(serve(open_scorer))"
    )
    with Worker(script(code), frames, threads=1, folder=tmp_path) as worker:
        turn = worker.score([1])
    pixels = np.fromfile(frames.raw, np.uint8).reshape(frames.count, 64, 64, 3)
    assert turn.scores.tolist() == [float(pixels[1].mean())]
    assert turn.rejected.tolist() == [True]


@pytest.mark.parametrize("where", ["opening", "scoring"])
def test_an_exception_is_reported_with_its_type(where, frames, tmp_path):
    raising = "(_ for _ in ()).throw(ValueError('no such operator'))"
    opener = raising if where == "opening" else f"lambda frame: {raising}"
    code = (
        "import sys; from flawline.benchmarks.peers.workers.serving import serve\n"
        f"sys.exit(serve(lambda task: {opener}))"
    )
    with (
        pytest.raises(WorkerError, match="ValueError: no such operator"),
        Worker(script(code), frames, threads=1, folder=tmp_path) as worker,
    ):
        worker.score([0])


def test_frames_are_the_same_bytes_for_all(frames, tiny_dataset):
    assert frames.count == 10
    assert frames.defects.tolist() == [False] * 6 + [True] * 4
    pixels = np.fromfile(frames.raw, np.uint8).reshape(frames.count, 64, 64, 3)
    for row, path in zip(pixels, [*sorted(frames.good.iterdir()), *sorted(frames.defective.iterdir())], strict=True):
        frame = read_image(path)
        assert frame.shape == (64, 64)
        np.testing.assert_array_equal(row, np.dstack([frame] * 3))
    assert len(list(frames.fit.iterdir())) == frames.fit_images == 6
    assert json.dumps([frames.height, frames.width]) == "[64, 64]"
