# The commands of the project; `make` without a target lists them. A command that needs .venv first makes it, or makes
# it again if the requirements have changed.
#
# Variables:
# PYTHON       The interpreter to make .venv with. Default: the first one of python3.11, python3.12, python3.13 and
#              python3 that is 3.11 or newer.
# TORCH_INDEX  A package index for torch, in addition to PyPI; empty for PyPI alone. Default: PyTorch's index of CPU
#              builds if this machine has no NVIDIA GPU and can reach it, else empty. The torch on PyPI brings gigabytes
#              of CUDA libraries on Linux. With both indexes, pip prefers the CPU build: "2.13.0+cpu" is newer than
#              "2.13.0" in its order of versions.
# ARGS         Further arguments for pytest, the demo, chaos or soak, as in `make test ARGS="-k retrieval"`.

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
CPU_INDEX := https://download.pytorch.org/whl/cpu

# Use the base interpreter, not that of an activated environment, which may be the .venv that is made again.
ifndef PYTHON
PYTHON := $(or $(shell for python in python3.11 python3.12 python3.13 python3; do $$python -c \
	"import sys; sys.version_info < (3, 11) or print(sys._base_executable)" 2>/dev/null; done | head -n 1),python3)
endif
TORCH_INDEX ?= $(shell [ -e /dev/nvidia0 ] || command -v nvidia-smi >/dev/null || { \
	"$(PYTHON)" -c "from urllib.request import urlopen; urlopen('$(CPU_INDEX)/torch/', timeout=5)" 2>/dev/null \
	&& echo $(CPU_INDEX); })

# Keep compiled modules also where the environment forbids it, as containers often do: tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

# Three processes for every two cores, because tests of whole jobs sometimes wait.
WORKERS := $$(( $$(getconf _NPROCESSORS_ONLN) * 3 / 2 ))
PYTEST := $(PY) -m pytest -n $(WORKERS) --maxprocesses 8 --dist loadfile --no-loadscope-reorder
BENCHMARKS := step loss memory sinkhorn embed candidates moment_index loader full_size full_video extract pretokenize shard
TEXTS := $(wildcard *.md *.toml *.txt *.yml) Dockerfile Makefile benchmarks docs experiments mmpt projects scripts spaces tests

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast lint docs chaos soak image bench clean

help:   ## list the commands
	@sed -n 's/^\([a-z-]*\): .*## /make \1\t/p' Makefile

setup: $(READY)   ## make .venv with the pinned requirements, fairseq and mmpt

demo: $(READY)   ## make the demo data, train VideoCLIP and Norton on it, print the table of results
	$(PY) -m mmpt.cli.demo $(ARGS)

test: $(READY)   ## run the tests, on all cores
	$(PYTEST) $(ARGS)

test-fast: $(READY)   ## run the tests that are short and start no other programs, a fifth of the time of all
	$(PYTEST) -n $$(getconf _NPROCESSORS_ONLN) -m "not e2e and not spawn and not browser and not slow" $(ARGS)

lint: $(READY)   ## check style (ruff), types (mypy), spelling (codespell), words and the Dockerfile (hadolint)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m codespell_lib $(TEXTS)
	$(PY) tests/test_words.py
	$(VENV)/bin/hadolint Dockerfile

docs: $(READY)   ## build the documentation site into site/; a broken link is an error
	$(PY) -m mkdocs build --strict

chaos: $(READY)   ## interrupt tiny trainings at random moments, compare them with whole ones, print a table
	OMP_NUM_THREADS=1 $(PY) -m tests.support.chaos build/chaos/corpus build/chaos/runs $(ARGS)

soak: $(READY)   ## load a million clips and plan a hundred epochs, look for leaks and wrong items, print a table
	OMP_NUM_THREADS=1 ONEDNN_PRIMITIVE_CACHE_CAPACITY=1 LRU_CACHE_CAPACITY=1 \
		$(PY) -m tests.support.soak build/soak $(ARGS)

image:   ## build the Docker image `mmpt` with the CPU build of PyTorch
	docker build --tag mmpt .

bench: $(READY)   ## measure speed and memory next to plain implementations (5 minutes), print the table
	@set -e; for name in $(BENCHMARKS); do \
		echo "$(PY) benchmarks/$$name.py"; $(PY) benchmarks/$$name.py; done
	@$(PY) benchmarks/results.py

clean:   ## remove .venv and caches, but not data/ and runs/
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The file .venv/.ready is written last, so that an interrupted set-up is repeated. `--clear` removes its remains.
$(READY): requirements.txt requirements-dev.txt requirements-fairseq.txt pyproject.toml
	@"$(PYTHON)" -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo \
		"MMPT needs Python 3.11 or newer, but $(PYTHON) is $$("$(PYTHON)" --version 2>&1)." \
		"Name another: make setup PYTHON=/path/to/python3.11" >&2; exit 2; }
	@"$(PYTHON)" -c "import ensurepip, venv" || { echo "$(PYTHON) has no venv module. Install it (Debian, Ubuntu:" \
		"apt-get install python3-venv) or name another: make setup PYTHON=/path/to/python3.11" >&2; exit 2; }
	"$(PYTHON)" -m venv --clear $(VENV)
	$(PY) -m pip install $(addprefix --extra-index-url ,$(TORCH_INDEX)) -r requirements-dev.txt
	READTHEDOCS=1 $(PY) -m pip install --no-deps --no-build-isolation -r requirements-fairseq.txt
	$(PY) -m pip install --no-deps --no-build-isolation -e .
	@$(PY) -c "import torch, fairseq, mmpt; \
		print('Set-up done: torch', torch.__version__, '(CUDA build)' if torch.version.cuda else '(CPU build)')"
	@touch $@
