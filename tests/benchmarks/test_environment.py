import json
import platform
from dataclasses import asdict, replace

from flawline.benchmarks import environment


def test_this_machine_is_described():
    described = environment.describe()
    assert described.cores >= 1
    assert described.memory_bytes > 1 << 28
    assert "numpy" in described.libraries
    assert described.kernels[-1] == "reference"
    assert described.cpu in described.summary()
    json.dumps(asdict(described))


def test_load_and_governor_are_reasons_to_doubt():
    quiet = replace(environment.describe(), load_1min=0.0, cores=2, governor=None)
    assert quiet.warnings == []
    assert "others were running" in replace(quiet, load_1min=1.5).warnings[0]
    assert "powersave" in replace(quiet, governor="powersave").warnings[0]


def test_peak_memory_only_grows():
    before = environment.peak_memory_bytes()
    block = bytearray(64 << 20)
    assert environment.peak_memory_bytes() >= max(before, len(block))


def test_what_the_builder_of_a_kernel_called_it_is_left_out(monkeypatch):
    monkeypatch.setattr(platform, "release", lambda: "5.10.120-tegra-line7.plant")
    assert environment.describe().system.startswith(f"{platform.system()} 5.10.120")
    assert "plant" not in environment.describe().system
