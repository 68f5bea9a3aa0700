# `make demo` and `make test` set everything up by themselves; a second call does no set-up again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KIND ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
READY := $(VENV)/.ready-$(KIND)
PIP := $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: setup demo test bench-ci test-faults test-cluster test-gpu test-parity lint audit format lock clean

setup: $(READY)

# torchrec asks for the GPU build of fbgemm, which breaks the CPU build (they share a folder): so torch first, the rest
# without their dependencies, which dev.txt holds.
$(READY): cluster/dev.txt cluster/torch-$(KIND).txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sml-dist needs Python 3.11 or later; make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes -r cluster/dev.txt
	$(PIP) torch==2.13.0
	$(PIP) --require-hashes --no-deps -r cluster/torch-$(KIND).txt
	$(PIP) --no-deps --no-build-isolation --editable .
	touch $@

demo: setup
	rm -rf demo
	$(BIN)/sml-dist synth --rows 300000 --output demo/data
	$(BIN)/sml-dist train configs/smoke.yaml
	@echo 'the run as a page, for a browser: demo/smoke/report.html'

test: setup
	$(BIN)/python -m pytest

# Everything that injects faults, the ten minutes of fuzzing included, and what else takes long: over an hour on two cores.
test-faults: setup
	SML_DIST_FUZZ_MINUTES=10 $(BIN)/python -m pytest tests/faults -m faults --timeout 1800
	$(BIN)/python -m pytest --ignore tests/faults -m "long and not cluster" --timeout 1800

# The clusters of several nodes on this machine, those with network namespaces included (they need root).
test-cluster: setup
	$(BIN)/python -m pytest tests/cluster -m cluster --timeout 900

# What needs a CUDA device; all other tests see none.
test-gpu: setup
	$(BIN)/python -m pytest tests/gpu -m gpu

# The zoo beside FuxiCTR's layers, which lie beside this environment. PYTHONPATH may name a checkout of its repository, for all models.
PARITY := $(VENV)/parity
test-parity: setup
	$(PIP) --no-deps --upgrade --target $(PARITY) fuxictr==2.3.10 polars polars-runtime-32 h5py tqdm
	PYTHONPATH=$$PYTHONPATH:$(PARITY) $(BIN)/python -m pytest tests/models -k parity

# A few ratios of this machine; bounds are shown, not enforced: noise fails no build.
bench-ci: setup
	$(BIN)/sml-dist bench step sml --rounds 1

lint: setup
	$(BIN)/ruff check .
	$(BIN)/lint-imports

# Known holes in what the locks hold (needs the network). torch has no hash there: its build differs by machine.
AUDIT := $(BIN)/pip-audit --vulnerability-service osv --disable-pip
audit: setup
	$(AUDIT) --require-hashes -r cluster/dev.txt -r cluster/torch-cpu.txt -r cluster/torch-gpu.txt
	echo torch==2.13.0 | $(AUDIT) --no-deps -r /dev/stdin

# Resolves the locks anew (needs uv).
UV := uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-header --no-annotate --generate-hashes
lock:
	$(UV) cluster/requirements.in -o cluster/requirements.txt
	$(UV) cluster/dev.in -c cluster/requirements.txt -o cluster/dev.txt
	$(UV) --no-deps cluster/torch-cpu.in -o cluster/torch-cpu.txt
	$(UV) --no-deps cluster/torch-gpu.in -o cluster/torch-gpu.txt

# What can be made again; not runs.
clean:
	rm -rf demo bench .pytest_cache .ruff_cache .hypothesis
