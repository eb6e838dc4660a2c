# One entrance to everything that is run by hand or by CI. `make` alone lists the targets.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.requirements-installed

# What is formatted, linted and typed; names that do not exist yet are left out.
SOURCES := $(wildcard gill scripts evals demo examples main.py setup.py)
PYTEST_ARGS ?=
FLATLAND_OUT ?= data/flatland
FLATLAND_SIZE ?= $(if $(filter 1,$(SMOKE)),40,10000)
FLATLAND_SEED ?= 0
# GILL in Flatland by the preset's recipe: minutes on two cores. TRAIN_ARGS adds flags to it.
TRAIN_RUN := flatland
TRAIN_ARGS ?=
DEMO_ARGS ?=
# What `make reproduce` makes: main, mappers, tokens or losses.
TABLE ?= main
# Its commands at once, each with its share of the cores; empty: as evals/reproduce.py says.
JOBS ?=
# SMOKE=1: the same code in the fewest steps, to see whether it runs; its numbers mean nothing.
SMOKE ?=
ifeq ($(SMOKE),1)
TRAIN_RUN := flatland_smoke
SMOKE_TRAIN := --epochs 1 --steps-per-epoch 1 --batch-size 2 --val-batch-size 2 --val-steps-per-epoch 1
SMOKE_REPORT := --count 2
endif
export SMOKE

# Read at import time by huggingface_hub and gradio: nothing here asks the network for anything. For a demo that may,
# both words are needed: `HF_HUB_OFFLINE=0 make demo DEMO_ARGS="--allow-network"`.
HF_HUB_OFFLINE ?= 1
export HF_HUB_OFFLINE
export GRADIO_ANALYTICS_ENABLED := False

.DEFAULT_GOAL := help
.PHONY: help setup check test train reproduce demo flatland bench

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv and install the requirements; does nothing when they have not changed

# An environment without the stamp (made by hand, or an install that was interrupted) is completed, not replaced.
$(STAMP): requirements.txt requirements-dev.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet -r requirements-dev.txt
	@touch $@

check: setup ## formatting, lint, types, and the rules of tests/test_architecture.py
	$(RUN) -m ruff format --check $(SOURCES) tests
	$(RUN) -m ruff check $(SOURCES) tests
	$(RUN) -m mypy $(SOURCES)
	$(RUN) -m pytest -q tests/test_architecture.py

test: check ## everything that needs neither an accelerator nor released weights
	$(RUN) -m pytest -q -m "not gpu and not weights" $(PYTEST_ARGS)

# Again: a stopped training continues, a finished one says so, and nothing is overwritten.
train: setup ## train GILL in Flatland and report it in runs/flatland (minutes on two cores; SMOKE=1: one step)
	$(RUN) main.py --preset flatland --exp-name $(TRAIN_RUN) --workers 1 $(SMOKE_TRAIN) $(TRAIN_ARGS)
	$(RUN) evals/flatland_report.py runs/$(TRAIN_RUN) $(SMOKE_REPORT)

demo: setup ## chat in the browser with checkpoints/gill_flatland (DEMO_ARGS="--model runs/flatland/model" for your own)
	$(RUN) demo/app_gradio.py $(DEMO_ARGS)

flatland: setup ## write the miniature world to FLATLAND_OUT (data/flatland)
	$(RUN) scripts/make_flatland.py --out $(FLATLAND_OUT) --size $(FLATLAND_SIZE) --seed $(FLATLAND_SEED)

reproduce: setup ## the papers' tables in Flatland, TABLE=main|mappers|tokens|losses, into docs/RESULTS.md (resumable)
	$(RUN) evals/reproduce.py --table $(TABLE) $(if $(JOBS),--jobs $(JOBS))

bench: setup ## measure the speed that is promised; the last line is JSON (minutes; SMOKE=1: toy shapes)
	$(RUN) scripts/benchmark.py
