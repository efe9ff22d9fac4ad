# Every target sets up what it needs, once: `make quantize` works on a fresh clone.
#
#   DEVICE  a recipe in recipes/                          MODEL   a diffusers folder or hub id (default: the demo)
#   OUTPUT  the artifact (default: artifacts/DEVICE)      METHOD  rtn, awq or best instead of the recipe's
#   FORCE=1 replace an artifact of something else         CHECK   pictures compared after quantize (0: none)
#   RESTART=1 begin anew, not where a run was cut         MEMORY  what quantize may take (default: 6GiB)
#   TRUTH   true pictures (default: the demo's signs)     COMPONENT  of bench-full-size (default: both; none: sizes alone)
#   PYTHON  the Python 3.11 to set up with

DEVICE ?= orin
MODEL ?=
METHOD ?=
OUTPUT ?= artifacts/$(DEVICE)
CHECK ?= 16
FORCE ?=
RESTART ?=
MEMORY ?=
COMPONENT ?= both
TRUTH ?=
PYTHON ?= $(or $(shell command -v python3.11),python3)

VENV := .venv
RUN := $(VENV)/bin
SET_UP := $(VENV)/.set-up
VENV_RKNN := .venv-rknn
SET_UP_RKNN := $(VENV_RKNN)/.set-up
OPEN_CLIP := build/open_clip/.there
EDGEPRESS := $(RUN)/edgepress
CHOSEN_MODEL := $(if $(MODEL),--model "$(MODEL)")
# Whether the demo is evaluated, whose true pictures can be drawn.
DEMO := $(if $(MODEL)$(TRUTH),,$(shell grep -s '^model: demo' recipes/$(DEVICE).yaml))
# Whether the device has an NPU of Rockchip's.
RKNN := $(shell grep -s '^rknn:' recipes/$(DEVICE).yaml)
SIGNS := artifacts/.work/truth

.DEFAULT_GOAL := help
.PHONY: help setup setup-rknn quantize export evaluate artifact bench test test-fast browser check format clean open-clip \
	bench-quality bench-ladder bench-evaluate bench-clip bench-quantize bench-full-size bench-kernels bench-peers bench-interop \
	bench-onnx bench-onnx-full-size bench-rknn bench-rknn-pictures bench-rknn-folding

help:  ## this list
	@sed -n '3,9s/^# *//p' Makefile
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(SET_UP)  ## the virtual environment in .venv (every other target calls it)

# torch comes first: what depends on it must find it there.
$(SET_UP): pyproject.toml constraints.txt
	@echo "Setting up $(VENV): torch and what else is needed, a few minutes." >&2
	$(PYTHON) -m venv --clear $(VENV)
	$(RUN)/pip install --quiet --constraint constraints.txt torch
	$(RUN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

setup-rknn: $(SET_UP_RKNN)  ## rknn-toolkit2 in .venv-rknn, which reads torch from .venv (what needs it calls this)

$(SET_UP_RKNN): constraints-rknn.txt $(SET_UP)
	@echo "Setting up $(VENV_RKNN): rknn-toolkit2, half a minute." >&2
	$(PYTHON) -m venv --clear $(VENV_RKNN)
	$(VENV_RKNN)/bin/pip install --quiet --no-deps --requirement constraints-rknn.txt
	@$(RUN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$($(VENV_RKNN)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth"
	@touch $@

quantize: $(SET_UP)  ## press MODEL for DEVICE to OUTPUT, then compare CHECK pictures (CHECK=0: none)
	$(EDGEPRESS) quantize --recipe $(DEVICE) --output "$(OUTPUT)" $(CHOSEN_MODEL) \
		$(if $(METHOD),--method $(METHOD)) $(if $(MEMORY),--memory $(MEMORY)) \
		$(if $(FORCE),--force) $(if $(RESTART),--restart)
ifneq ($(CHECK),0)
	$(EDGEPRESS) evaluate --recipe $(DEVICE) --candidate "$(OUTPUT)/model" $(CHOSEN_MODEL) \
		--limit $(CHECK) --no-gates --no-noise-floor --output "$(OUTPUT)/evaluation/check"
endif

export: $(SET_UP) $(if $(RKNN),$(SET_UP_RKNN))  ## graphs of the pressed pipeline in OUTPUT, as the recipe of DEVICE wants them
	$(EDGEPRESS) export onnx --recipe $(DEVICE) --output "$(OUTPUT)"
ifneq ($(RKNN),)
	$(EDGEPRESS) export rknn --recipe $(DEVICE) --output "$(OUTPUT)" $(CHOSEN_MODEL)
endif

# The true signs need fonts; where there are none, all are compared with the reference alone.
evaluate: $(SET_UP)  ## compare all that OUTPUT holds with the reference, and hold it to the recipe's limits
ifneq ($(DEMO),)
	$(RUN)/python -m edgepress.demo.signs.ground_truth --output $(SIGNS) || { code=$$?; rm -rf $(SIGNS); test $$code = 3; }
	$(EDGEPRESS) evaluate --recipe $(DEVICE) --candidate "$(OUTPUT)" --output "$(OUTPUT)/evaluation" \
		$$(test -d $(SIGNS) && echo --truth $(SIGNS))
else
	$(EDGEPRESS) evaluate --recipe $(DEVICE) --candidate "$(OUTPUT)" --output "$(OUTPUT)/evaluation" \
		$(CHOSEN_MODEL) $(if $(TRUTH),--truth "$(TRUTH)")
endif

artifact:  ## quantize, export and evaluate: the whole artifact of DEVICE
	$(MAKE) quantize CHECK=0
	$(MAKE) export
	$(MAKE) evaluate

bench: $(SET_UP)  ## time what OUTPUT exported, on this machine: start-up, image, step, memory
	$(EDGEPRESS) bench "$(OUTPUT)" $(if $(DEMO),--prompts demo/pipeline/prompts/evaluation.jsonl)

test: $(SET_UP) $(SET_UP_RKNN) $(OPEN_CLIP) browser  ## all tests that need no device
	OMP_NUM_THREADS=1 $(RUN)/pytest -m "not device" --numprocesses logical --maxprocesses 4 --dist loadfile

test-fast: $(SET_UP)  ## the tests that take seconds
	$(RUN)/pytest -m "not device and not slow"

# Root on a machine without one installs it, which is what CI is; others are told how by the test that needs it.
browser:  ## a Chromium, in which the tests look at the report of an evaluation
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do \
		command -v $$name >/dev/null && exit 0; \
	done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing Chromium from Debian, for the test of the report." >&2; \
		apt-get update -qq && apt-get install -qq --yes --no-install-recommends chromium fonts-liberation >/dev/null || \
			echo "Chromium could not be installed." >&2; \
	fi

check: $(SET_UP)  ## lint, format, types
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	@mkdir -p build/view && ln -sfn ../.. build/view/edgepress
	$(RUN)/mypy

format: $(SET_UP)  ## let ruff mend what it can
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

bench-quality: $(SET_UP)  ## RTN, AWQ and best on the demo, into docs/benchmarks.md (as all that follow)
	$(RUN)/python -m edgepress.benchmarks.quantization.quality

bench-ladder: $(SET_UP)  ## what each step of the ladder gains on the demo
	$(RUN)/python -m edgepress.benchmarks.quantization.quality --ladder

bench-evaluate: $(SET_UP)  ## what measuring 500 pairs of pictures costs
	$(RUN)/python -m edgepress.benchmarks.evaluation.throughput

bench-clip: $(SET_UP)  ## what the demo's CLIP can tell apart
	$(RUN)/python -m edgepress.benchmarks.evaluation.clip

bench-quantize: $(SET_UP)  ## time and memory of quantizing the demo
	$(RUN)/python -m edgepress.benchmarks.quantization.cost

bench-full-size: $(SET_UP)  ## time, memory and traffic of quantizing random weights of full size (COMPONENT=…)
	$(RUN)/python -m edgepress.benchmarks.quantization.full_size --component $(COMPONENT)

bench-kernels: $(SET_UP)  ## the int4 product against dequantizing, by shape and rows
	$(RUN)/python -m edgepress.benchmarks.quantization.kernels

bench-peers: $(SET_UP)  ## what other tools make of the demo at the same bits, each in its own environment
	$(RUN)/python -m edgepress.benchmarks.peers

bench-interop: $(SET_UP)  ## whether stock transformers reads the artifact's text encoder
	$(RUN)/python -m edgepress.benchmarks.quantization.interop

open-clip: $(OPEN_CLIP)  ## open_clip beside the environment, for the test that compares with it

# Beside it, for torchvision would break the environment.
$(OPEN_CLIP): $(SET_UP)
	$(RUN)/pip install --quiet --no-deps --target build/open_clip --upgrade open-clip-torch==3.3.0 timm==1.0.31 \
		ftfy==6.3.1 wcwidth==0.9.4 torchvision==0.28.0
	@touch $@

bench-onnx: $(SET_UP)  ## ONNX graphs in every precision, and ONNX Runtime's own: time, memory, bytes, pictures
	$(RUN)/python -m edgepress.benchmarks.onnx.graphs

bench-onnx-full-size: $(SET_UP)  ## exporting, loading and running graphs of full size (COMPONENT=…)
	$(RUN)/python -m edgepress.benchmarks.onnx.full_size --component $(COMPONENT)

bench-rknn: $(SET_UP) $(SET_UP_RKNN)  ## blocks of full size for an NPU: building and simulating them, and the plan
	$(RUN)/python -m edgepress.benchmarks.rknn.blocks

bench-rknn-pictures: $(SET_UP) $(SET_UP_RKNN)  ## the demo's pictures on a simulated NPU, in fp16, w8a8 and mixed
	$(RUN)/python -m edgepress.benchmarks.rknn.images

bench-rknn-folding: $(SET_UP) $(SET_UP_RKNN)  ## what folding is worth to the demo on a simulated NPU in w8a8
	$(RUN)/python -m edgepress.benchmarks.rknn.folding

clean:  ## remove artifacts and caches (the environment stays)
	rm -rf artifacts build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
