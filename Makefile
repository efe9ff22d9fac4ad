# Every target sets up what it needs, once: `make quantize` works on a fresh clone.
#
#   DEVICE  a recipe in recipes/                          MODEL   a diffusers folder or hub id (default: the demo)
#   OUTPUT  the artifact (default: artifacts/DEVICE)      METHOD  rtn, awq or best instead of the recipe's
#   FORCE=1 replace an artifact of something else         CHECK   pictures compared after quantize (0: none)
#   RESTART=1 begin anew, not where a run was cut         MEMORY  what quantize may take (default: 6GiB)
#   PYTHON  the Python 3.11 to set up with                COMPONENT  of bench-full-size (default: both; none: sizes alone)

DEVICE ?= orin
MODEL ?=
METHOD ?=
OUTPUT ?= artifacts/$(DEVICE)
CHECK ?= 16
FORCE ?=
RESTART ?=
MEMORY ?=
COMPONENT ?= both
PYTHON ?= $(or $(shell command -v python3.11),python3)

VENV := .venv
RUN := $(VENV)/bin
SET_UP := $(VENV)/.set-up
EDGEPRESS := $(RUN)/edgepress
CHOSEN_MODEL := $(if $(MODEL),--model "$(MODEL)")

.DEFAULT_GOAL := help
.PHONY: help setup quantize export evaluate artifact test test-fast check format clean \
	bench-quality bench-ladder bench-quantize bench-full-size bench-kernels bench-peers bench-interop

help:  ## this list
	@sed -n '3,8s/^# *//p' Makefile
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(SET_UP)  ## the virtual environment in .venv (every other target calls it)

# torch comes first: what depends on it must find it there.
$(SET_UP): pyproject.toml constraints.txt
	@echo "Setting up $(VENV): torch and what else is needed, a few minutes." >&2
	$(PYTHON) -m venv --clear $(VENV)
	$(RUN)/pip install --quiet --constraint constraints.txt torch
	$(RUN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

quantize: $(SET_UP)  ## press MODEL for DEVICE to OUTPUT, then compare CHECK pictures (CHECK=0: none)
	$(EDGEPRESS) quantize --recipe $(DEVICE) --output "$(OUTPUT)" $(CHOSEN_MODEL) \
		$(if $(METHOD),--method $(METHOD)) $(if $(MEMORY),--memory $(MEMORY)) \
		$(if $(FORCE),--force) $(if $(RESTART),--restart)
ifneq ($(CHECK),0)
	$(EDGEPRESS) evaluate --recipe $(DEVICE) --candidate "$(OUTPUT)/model" $(CHOSEN_MODEL) \
		--limit $(CHECK) --output "$(OUTPUT)/evaluation/check"
endif

export: $(SET_UP)  ## ONNX graphs of the pressed pipeline in OUTPUT, as the recipe of DEVICE wants them
	$(EDGEPRESS) export onnx --recipe $(DEVICE) --output "$(OUTPUT)"

evaluate: $(SET_UP)  ## compare the pressed pipeline with the reference, on all prompts of the recipe
	$(EDGEPRESS) evaluate --recipe $(DEVICE) --candidate "$(OUTPUT)/model" $(CHOSEN_MODEL) --output "$(OUTPUT)/evaluation"

artifact:  ## quantize, export and evaluate: the whole artifact of DEVICE
	$(MAKE) quantize CHECK=0
	$(MAKE) export
	$(MAKE) evaluate

test: $(SET_UP)  ## all tests that need no device
	$(RUN)/pytest -m "not device"

test-fast: $(SET_UP)  ## the tests that take seconds
	$(RUN)/pytest -m "not device and not slow"

check: $(SET_UP)  ## lint, format, types
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	@mkdir -p build/view && ln -sfn ../.. build/view/edgepress
	$(RUN)/mypy

format: $(SET_UP)  ## let ruff mend what it can
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

bench-quality: $(SET_UP)  ## RTN, AWQ and best on the demo, into docs/benchmarks.md (as all that follow)
	$(RUN)/python -m edgepress.benchmarks.quality

bench-ladder: $(SET_UP)  ## what each step of the ladder gains on the demo
	$(RUN)/python -m edgepress.benchmarks.quality --ladder

bench-quantize: $(SET_UP)  ## time and memory of quantizing the demo
	$(RUN)/python -m edgepress.benchmarks.cost

bench-full-size: $(SET_UP)  ## time, memory and traffic of quantizing random weights of full size (COMPONENT=…)
	$(RUN)/python -m edgepress.benchmarks.full_size --component $(COMPONENT)

bench-kernels: $(SET_UP)  ## the int4 product against dequantizing, by shape and rows
	$(RUN)/python -m edgepress.benchmarks.kernels

bench-peers: $(SET_UP)  ## what other tools make of the demo at the same bits, each in its own environment
	$(RUN)/python -m edgepress.benchmarks.peers

bench-interop: $(SET_UP)  ## whether stock transformers reads the artifact's text encoder
	$(RUN)/python -m edgepress.benchmarks.interop

clean:  ## remove artifacts and caches (the environment stays)
	rm -rf artifacts build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
