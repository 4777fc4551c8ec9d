# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYCUDA := $(VENV)/.pycuda
CUDA := $(VENV)/cuda
TENSORRT := $(VENV)/tensorrt
# The references multiply small matrices, for which more threads only wait for each other.
ONE_BLAS_THREAD := OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1

QUICK := "not slow and not gpu and not tensorrt"
# Streams keep real time, which they cannot beside tests on every core.
REAL_TIME := tests/runtime/cameras tests/runtime/stream tests/benchmarks/stream

.PHONY: help demo test test-slow test-deps lint types cuda test-gpu bench-gpu gpu-site clean
help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): pyproject.toml CMakeLists.txt $(shell find runtime/kernels/native -name '*.cpp' -o -name '*.h' -o -name CMakeLists.txt 2>/dev/null)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[demo,dev]"
	@touch $@

# After $(READY), not because of it: it takes a minute and a half, and hangs on nothing that changes there.
$(PYCUDA): tests/emulation/install_pycuda.py | $(READY)
	$(BIN)/python $<
	@touch $@

# Compilers of CUDA, whose programs and libraries alone are used: apart, since torch asks for other releases of them.
$(CUDA)/.ready: pyproject.toml | $(READY)
	rm -rf $(CUDA)
	$(BIN)/python -m pip install --quiet --no-deps --target $(CUDA) --group cuda
	@touch $@

# What stands for TensorRT without a GPU: a folder for each, since they share the names of their modules.
$(TENSORRT)/.ready: pyproject.toml | $(READY)
	rm -rf $(TENSORRT)
	mkdir -p $(TENSORRT)
	for name in rtx 8.6 10.3 10.13 11.4; do \
		$(BIN)/python -m pip install --quiet --no-deps --target $(TENSORRT)/$$name --group tensorrt-$$name || exit 1; \
	done
	@touch $@

demo: $(READY) ## fit, evaluate, stream and measure on real solar cells; writes demo/report.html
	$(BIN)/flawline demo --out demo

test: $(READY) $(PYCUDA) $(CUDA)/.ready $(TENSORRT)/.ready lint types ## everything that takes under 12 minutes on 2 cores
	$(ONE_BLAS_THREAD) $(BIN)/python -m pytest --numprocesses auto --dist loadfile $(REAL_TIME:%=--ignore=%) -m $(QUICK)
	$(ONE_BLAS_THREAD) $(BIN)/python -m pytest -m $(QUICK) $(REAL_TIME)

test-slow: $(READY) $(PYCUDA) $(TENSORRT)/.ready ## what takes longer
	$(ONE_BLAS_THREAD) $(BIN)/python -m pytest -m "slow and not gpu"

DEBIAN_PACKAGES := libaravis-0.8-0 iproute2

test-deps: ## Debian packages that some tests need, installed where it may be: Aravis with its fake camera
	@if dpkg -s $(DEBIAN_PACKAGES) > /dev/null 2>&1; then true; \
	elif [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(DEBIAN_PACKAGES) > /dev/null; \
	else echo "tests of GigE Vision will be skipped without: sudo apt-get install $(DEBIAN_PACKAGES)"; fi

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=src $(BIN)/lint-imports --no-cache

types: $(READY)
	$(BIN)/mypy

cuda: $(CUDA)/.ready ## kernels for GPUs, built for the wheel, and the registers that each takes
	PYTHONPATH=$(CUDA) $(BIN)/python -m flawline.runtime.kernels.cuda.prebuilding

# On a machine with a GPU, by the Python that is there: no environment is made, and nothing is downloaded.
GPU_SITE := build/gpu
GPU_RESULT ?= benchmarks/results/gpu.json
ON_GPU := PYTHONPATH=$(GPU_SITE)$${PYTHONPATH:+:$$PYTHONPATH} $(ONE_BLAS_THREAD) $(PYTHON)

gpu-site:
	$(PYTHON) -m pip install --quiet --no-deps --no-build-isolation --upgrade --target $(GPU_SITE) .

test-gpu: gpu-site ## every case of the kernels and whole frames on an NVIDIA GPU
	$(ON_GPU) -m pytest -m gpu tests/runtime/kernels/cuda tests/gpu
	$(ON_GPU) -m tests.gpu.sanitize -m "gpu and not slow" tests/runtime/kernels/cuda

bench-gpu: gpu-site ## kernels and frames measured on an NVIDIA GPU; writes benchmarks/results/gpu.json
	$(ON_GPU) -m flawline bench gpu --json $(GPU_RESULT)

clean: ## removes the environment and everything built
	rm -rf $(VENV) build dist demo
