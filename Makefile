# Targets for people and CI; `make help` lists them. Needs only make and Python 3.11 or 3.12.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV ?= .venv
# Where pip finds torch besides its usual index. For the CPU build (a laptop):
#   make install TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
EXTRAS ?= dev,ocr
# Processes that share the tests, a file each at a time: a file's tests share one Ray or one server.
TEST_JOBS ?= 2
STAMP := $(VENV)/.installed
RUN := PYTHONPATH=. $(VENV)/bin/python
# A crash of one ends all: pytest-xdist 3.8 would hang where it starts another (pytest-xdist #1323).
# In the files' own order, since the largest first leaves a file of one long test for the end.
SHARED := --numprocesses $(TEST_JOBS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0

.DEFAULT_GOAL := help
.PHONY: help install demo test-unit test test-postgresql test-long fmt lint types contracts golden openapi bench sbom check clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP)  ## a virtual environment with everything, as requirements.lock has it

$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' || \
	  { echo "tdm-r1 needs Python 3.11 or 3.12; found $$($(PYTHON) -V 2>&1). Say which: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	$(VENV)/bin/pip install -c requirements.lock -e ".[$(EXTRAS)]"
	@touch $(STAMP)

demo: install  ## TDM-R1 on the bundled tiny world: minutes on 2 CPU cores
	$(VENV)/bin/tdm-r1 demo

test-unit: install  ## pure code, under a minute
	$(RUN) -m pytest -m unit $(SHARED)

test: install  ## and Ray clusters, DeepSpeed engines, processes: under 12 minutes
	$(RUN) -m pytest -m "not long" $(SHARED)

test-postgresql: install  ## the label service's slow tests on PostgreSQL, on which `test` runs the others
	TDMR1_TEST_DATABASE=postgresql $(RUN) -m pytest -m "not long" $(SHARED) tests/labels

test-long: install  ## proofs that take minutes to hours; results belong in docs/results.md
	$(RUN) -m pytest -m long --timeout 14400 -rA

fmt: install  ## format in place
	$(VENV)/bin/ruff check --fix-only --exit-zero --quiet .
	$(VENV)/bin/ruff format .

lint: install  ## ruff, without changing a file
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: install  ## basedpyright: strict on tdm_core, basic elsewhere
	$(VENV)/bin/basedpyright

contracts: install  ## import directions and doors
	PYTHONPATH=. $(VENV)/bin/lint-imports

golden: install  ## rewrite the golden curve; say in the commit why, with old against new
	$(RUN) -m tests.golden.write

openapi: install  ## rewrite docs/openapi*.json and http_reward.json, contracts with other programs
	$(RUN) -m tests.labels.write_openapi
	$(RUN) -m tests.integration.write_reward_schema

bench: install  ## seconds per iteration by phase, and what Ray adds
	$(RUN) benchmarks/iteration.py configs/demo.yaml

check: lint types contracts test  ## what CI runs

sbom: install  ## build/sbom.json: what is installed, as CycloneDX
	$(PYTHON) -m venv build/sbom
	build/sbom/bin/pip install -q "cyclonedx-bom==7.5.0"
	build/sbom/bin/cyclonedx-py environment --output-file build/sbom.json $(VENV)/bin/python

clean:  ## the environment and caches; run folders stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist *.egg-info
