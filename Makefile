# Every target installs what it needs on first use: `make quantize` works on a fresh clone.
#
#   DEVICE        a recipe in recipes/ (default: orin)
#   MODEL         a diffusers folder or hub id (default: the recipe's)
#   OUTPUT        the artifact (default: artifacts/DEVICE)
#   METHOD        rtn, awq, gptq or best (default: the recipe's)
#   CHECK         images to compare after quantizing (default: 16; 0: none)
#   MAX_MEMORY    memory that quantizing may use (default: 6GiB)
#   FORCE=1       replace an artifact made from something else
#   RESTART=1     discard unfinished work
#   GROUND_TRUTH  ground-truth images for evaluate (default: the demo's, if the demo is evaluated)
#   COMPONENT     transformer, text_encoder, both or none, for bench-full-size (default: both)
#   CASES, SEED   damaged files for each reader, for fuzz (default: 10000), and which (default: 0)
#   POINTS, VERB  operations to let fail for each fault, for faults (default: 0, all), and of which command
#   ARTIFACTS     artifacts to tamper with, for tampering (default: artifacts/orin artifacts/pi5)
#   RECIPES       recipes to make artifacts of, for bench-artifacts (default: all)
#   JOBS          processes for fuzz and faults (default: 1)
#   OLD, REPEATS  another checkout of edgepress to compare with, for bench-commands, and runs in each (default: 5)
#   GGML          a libggml-base.so, for bench-interop: its rounding with an importance matrix is compared as well
#   PYTHON        the interpreter to create .venv with (default: the system's Python 3.11, or the first in PATH)

# Old names of variables and of a target are accepted for one release. A test rejects the target's name if it is whole.
OLD_TARGET := bench-rknn-pic$()tures
$(if $(filter $(OLD_TARGET),$(MAKECMDGOALS)),$(warning $(OLD_TARGET) is deprecated; write bench-rknn-images instead.))
ifdef MEMORY
$(warning MEMORY is deprecated; write MAX_MEMORY instead.)
MAX_MEMORY ?= $(MEMORY)
endif
ifdef TRUTH
$(warning TRUTH is deprecated; write GROUND_TRUTH instead.)
GROUND_TRUTH ?= $(TRUTH)
endif

DEVICE ?= orin
MODEL ?=
METHOD ?=
OUTPUT ?= artifacts/$(DEVICE)
CHECK ?= 16
FORCE ?=
RESTART ?=
MAX_MEMORY ?=
COMPONENT ?= both
GROUND_TRUTH ?=
CASES ?= 10000
SEED ?= 0
POINTS ?= 0
VERB ?=
ARTIFACTS ?= artifacts/orin artifacts/pi5
RECIPES ?=
JOBS ?= 1
OLD ?=
OLD_METHOD ?= gptq
BLOCKS ?= 1
STEPS ?= 1
DTYPE ?= bfloat16
REPEATS ?= 5
GGML ?=
REQUESTS ?= 1000
HOURS ?= 0.5
IMAGES ?= 2
PIPELINE ?= demo
# The system's interpreter comes first: distributions optimize theirs with a profile, and graphs are traced a fifth faster.
PYTHON ?= $(or $(shell for python in /usr/bin/python3.11 python3.11; do \
	$$python -c 'import ensurepip' 2>/dev/null && echo $$python && break; done),python3)

VENV := .venv
RUN := $(VENV)/bin
SET_UP := $(VENV)/.set-up
SET_UP_DOCS := $(VENV)/.set-up-docs
VENV_RKNN := .venv-rknn
SET_UP_RKNN := $(VENV_RKNN)/.set-up
OPEN_CLIP := build/open_clip/.set-up
PROCESSORS := build/processors/.set-up
CYCLONEDX := build/cyclonedx/.set-up
MODEL_SIGNING := build/model_signing/.set-up
READERS := build/readers/.set-up
EDGEPRESS := $(RUN)/edgepress
MODEL_OPTION := $(if $(MODEL),--model "$(MODEL)")
# Not empty if the demo is evaluated, whose ground-truth images can be drawn.
DEMO := $(if $(MODEL)$(GROUND_TRUTH),,$(shell grep -s '^model: demo' recipes/$(DEVICE).yaml))
# Not empty if the device has a Rockchip NPU. The old name of a recipe begins with that of the recipe which replaces it.
RKNN := $(shell grep -s '^rknn:' $(firstword $(wildcard recipes/$(DEVICE).yaml recipes/$(firstword $(subst -, ,$(DEVICE))).yaml)) /dev/null)
SIGNS := artifacts/.work/ground-truth
RUNTIME := build/runtime
RUNTIME_TESTS := test_previous_release.py recipes/test_deprecation.py recipes/test_loader.py recipes/test_schema.py common prompts

.DEFAULT_GOAL := help
.PHONY: help setup setup-rknn quantize export evaluate artifact bench test test-fast test-runtime browser check format docs docs-reference clean \
	open-clip readme-images bench-quality bench-ladder bench-budget bench-tune bench-transfer bench-evaluate bench-ocr bench-clip bench-quantize bench-commands bench-images bench-full-size bench-full-size-denoiser bench-full-size-ratio \
	bench-kernels bench-peers bench-interop bench-interop-full-size bench-families bench-onnx bench-openvino bench-onnx-full-size bench-onnx-options bench-rknn bench-rknn-images \
	bench-rknn-folding bench-conv bench-lora verify-arm64 bench-step-cache bench-server bench-soak bench-artifacts demo-lora fuzz faults tampering $(OLD_TARGET)

help:  ## show this help
	@sed -n '3,21s/^# *//p' Makefile && echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(SET_UP)  ## create the virtual environment in .venv (other targets do this on first use)

# torch is installed first, because packages that depend on it look for it while they are installed.
$(SET_UP): pyproject.toml constraints.txt
	@echo "Creating $(VENV) with torch and all other dependencies. This takes a few minutes." >&2
	$(PYTHON) -m venv --clear $(VENV)
	$(RUN)/pip install --quiet --constraint constraints.txt torch
	$(RUN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

setup-rknn: $(SET_UP_RKNN)  ## create .venv-rknn with rknn-toolkit2 (targets that need it do this on first use)

# The toolkit needs older libraries than edgepress. It uses torch from .venv, whose packages beside.pth adds to its path.
$(SET_UP_RKNN): constraints-rknn.txt $(SET_UP)
	@echo "Creating $(VENV_RKNN) with rknn-toolkit2. This takes half a minute." >&2
	$(PYTHON) -m venv --clear $(VENV_RKNN)
	$(VENV_RKNN)/bin/pip install --quiet --no-deps --requirement constraints-rknn.txt
	@$(RUN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$($(VENV_RKNN)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth"
	@touch $@

quantize: $(SET_UP)  ## quantize MODEL for DEVICE to OUTPUT, then compare CHECK images
	$(EDGEPRESS) quantize --recipe $(DEVICE) --output "$(OUTPUT)" $(MODEL_OPTION) \
		$(if $(METHOD),--method $(METHOD)) $(if $(MAX_MEMORY),--max-memory $(MAX_MEMORY)) \
		$(if $(FORCE),--force) $(if $(RESTART),--restart)
ifneq ($(CHECK),0)
	$(EDGEPRESS) evaluate --recipe $(DEVICE) --candidate "$(OUTPUT)/model" $(MODEL_OPTION) \
		--limit $(CHECK) --no-gates --no-noise-floor --output "$(OUTPUT)/evaluation/check"
endif

export: $(SET_UP) $(if $(RKNN),$(SET_UP_RKNN))  ## export the quantized pipeline in OUTPUT as the recipe of DEVICE says
	$(EDGEPRESS) export onnx --recipe $(DEVICE) --output "$(OUTPUT)"
ifneq ($(RKNN),)
	$(EDGEPRESS) export rknn --recipe $(DEVICE) --output "$(OUTPUT)" $(MODEL_OPTION)
endif

# Drawing ground-truth signs needs fonts. Without them (exit code 3), images are compared with the reference only.
evaluate: $(SET_UP)  ## compare everything in OUTPUT with the reference and apply the recipe's gates
ifneq ($(DEMO),)
	$(RUN)/python -m edgepress.demo.signs.ground_truth --output $(SIGNS) || \
		{ code=$$?; rm -rf $(SIGNS); test $$code = 3; }
	$(EDGEPRESS) evaluate --recipe $(DEVICE) --candidate "$(OUTPUT)" --output "$(OUTPUT)/evaluation" \
		$$(test -d $(SIGNS) && echo --ground-truth $(SIGNS))
else
	$(EDGEPRESS) evaluate --recipe $(DEVICE) --candidate "$(OUTPUT)" --output "$(OUTPUT)/evaluation" \
		$(MODEL_OPTION) $(if $(GROUND_TRUTH),--ground-truth "$(GROUND_TRUTH)")
endif

artifact:  ## quantize, export and evaluate: the whole artifact for DEVICE
	$(MAKE) quantize CHECK=0
	$(MAKE) export
	$(MAKE) evaluate
	$(EDGEPRESS) describe "$(OUTPUT)" $(if $(DEMO),--license apache-2.0)

bench: $(SET_UP)  ## measure the exported graphs in OUTPUT on this machine: start-up, image, step, memory
	$(EDGEPRESS) bench "$(OUTPUT)" $(if $(DEMO),--prompts demo/pipeline/prompts/evaluation.jsonl)

# Compiled modules are kept: each process that a test starts would compile them again. Where a test takes more threads,
# they sleep while they wait: as many workers as cores are busy already.
TEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(RUN)/pytest --numprocesses logical --maxprocesses 4 --dist loadfile \
	--no-loadscope-reorder --durations 25

test: $(SET_UP) $(SET_UP_RKNN) $(OPEN_CLIP) $(CYCLONEDX) $(MODEL_SIGNING) $(READERS) browser  ## run all tests that need no device
	$(TEST) -m "not device"

test-fast: $(SET_UP)  ## run the tests that take less than a second each
	$(TEST) -m "not device and not slow"

# What a board has: a wheel and its dependencies, without torch. Not part of `make test`, since it needs another Python.
test-runtime:  ## run the tests of the runtime on PYTHON=python3.13 or another, in an environment without torch
	rm -rf $(RUNTIME) && mkdir -p $(RUNTIME)
	$(PYTHON) -m venv $(RUNTIME)/env
	$(RUNTIME)/env/bin/pip wheel --quiet --no-deps --wheel-dir $(RUNTIME) .
	$(RUNTIME)/env/bin/pip install --quiet $(RUNTIME)/*.whl filelock hypothesis markdown-it-py pytest
	cd $(RUNTIME) && PYTHONPATH= env/bin/python -P -m pytest --rootdir "$(CURDIR)" -c "$(CURDIR)/pyproject.toml" \
		-m "not slow and not device" $(RUNTIME_TESTS:%="$(CURDIR)/tests/%")

# As root, for example in CI, it is installed. Otherwise the test that needs it says how to install it.
browser:  ## install Chromium, in which tests open the evaluation report
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do \
		command -v $$name >/dev/null && exit 0; \
	done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing Chromium for the tests of the report." >&2; \
		apt-get update -qq && apt-get install -qq --yes --no-install-recommends chromium fonts-liberation >/dev/null || \
			echo "Installing Chromium failed." >&2; \
	fi

check: $(SET_UP)  ## run lint, format and type checks
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	@mkdir -p build/view && ln -sfn ../.. build/view/edgepress
	$(RUN)/mypy

format: $(SET_UP)  ## let ruff fix and format the code
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

docs-reference: $(SET_UP)  ## the reference in docs/recipes.md and the JSON Schema of artifact.json, from the code
	$(RUN)/python -m edgepress.recipes.markdown
	$(RUN)/python -m edgepress.storage.artifact_schema

docs: $(SET_UP_DOCS)  ## build the documentation site in build/site
	NO_MKDOCS_2_WARNING=1 $(RUN)/mkdocs build --strict

$(SET_UP_DOCS): $(SET_UP)
	$(RUN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

readme-images: $(SET_UP)  ## draw the comparison of four prompts in docs/images
	$(RUN)/python -m edgepress.benchmarks.evaluation.readme_images

bench-quality: $(SET_UP)  ## image quality of RTN, AWQ and best on the demo (bench-* targets write to docs/benchmarks)
	$(RUN)/python -m edgepress.benchmarks.quantization.quality

bench-ladder: $(SET_UP)  ## what each quantization step gains on the demo
	$(RUN)/python -m edgepress.benchmarks.quantization.quality --compare steps

bench-budget: $(SET_UP)  ## mixed precision on the demo, beside one format for all layers
	$(RUN)/python -m edgepress.benchmarks.quantization.quality --compare formats

bench-tune: $(SET_UP)  ## what tuning gains on the demo; with SOLUTIONS=1 for other solutions
	$(RUN)/python -m edgepress.benchmarks.quantization.tuning $(if $(SOLUTIONS),--solutions)

bench-transfer: $(SET_UP)  ## methods on trained models of other kinds, from packages that contain the weights
	$(RUN)/python -m edgepress.benchmarks.transfer

bench-evaluate: $(SET_UP)  ## time of scoring 500 pairs of images
	$(RUN)/python -m edgepress.benchmarks.evaluation.throughput

bench-ocr: $(SET_UP)  ## what OCR reads, by size, shape, angle and ink of the text
	$(RUN)/python -m edgepress.benchmarks.evaluation.ocr

bench-clip: $(SET_UP)  ## what the demo's CLIP can tell apart
	$(RUN)/python -m edgepress.benchmarks.evaluation.clip

bench-quantize: $(SET_UP)  ## time and memory of quantizing the demo
	$(RUN)/python -m edgepress.benchmarks.quantization.cost

bench-commands: $(SET_UP)  ## what commands cost here and in another checkout, in turns (OLD=… REPEATS=5)
	@test -n "$(OLD)" || { echo "Give OLD=DIR, another checkout of edgepress." >&2; exit 2; }
	$(RUN)/python -m edgepress.benchmarks.common.compare_checkouts "$(OLD)" --repeats $(REPEATS)

bench-images: $(SET_UP)  ## what images cost here and in another checkout, in turns (OLD=… OLD_ARTIFACT=… OUTPUT=… REPEATS=5)
	@test -n "$(OLD)" || { echo "Give OLD=DIR, another checkout of edgepress." >&2; exit 2; }
	$(RUN)/python -m edgepress.benchmarks.common.compare_images "$(OLD)" "$(OLD_ARTIFACT)" "$(OUTPUT)" --repeats $(REPEATS)

bench-full-size: $(SET_UP)  ## time, memory and disk traffic of quantizing random full-size weights (COMPONENT=…)
	$(RUN)/python -m edgepress.benchmarks.quantization.full_size --component $(COMPONENT)

bench-full-size-denoiser: $(SET_UP)  ## the same for a transformer of 12 or 20 billion parameters (24 or 41 GB; METHOD=rtn PIPELINE=…)
	$(RUN)/python -m edgepress.benchmarks.quantization.full_size_denoiser $(if $(METHOD),--method $(METHOD)) \
		$(if $(filter-out demo,$(PIPELINE)),--pipeline $(PIPELINE))

bench-full-size-ratio: $(SET_UP)  ## full-width blocks here and in another checkout, in turns (OLD=… BLOCKS=1 STEPS=1 DTYPE=bfloat16)
	@test -n "$(OLD)" || { echo "Give OLD=DIR, another checkout of edgepress." >&2; exit 2; }
	$(RUN)/python -m edgepress.benchmarks.quantization.full_size_ratio "$(OLD)" --old-method $(OLD_METHOD) --blocks $(BLOCKS) \
		--steps $(STEPS) --dtype $(DTYPE) --repeats $(REPEATS)

bench-kernels: $(SET_UP)  ## the int4 kernel against dequantizing, by shape and number of rows
	$(RUN)/python -m edgepress.benchmarks.quantization.kernels

bench-server: $(SET_UP)  ## the server on the artifact in OUTPUT: start-up, memory, overhead, 1000 requests (REQUESTS=1000)
	$(RUN)/python -m edgepress.benchmarks.serving.load "$(OUTPUT)" --requests $(REQUESTS)

bench-soak: $(SET_UP)  ## images of the artifact in OUTPUT for HOURS=0.5: drift of memory, latencies, restarts of the server
	$(RUN)/python -m edgepress.benchmarks.serving.soak "$(OUTPUT)" --hours $(HOURS)

bench-peers: $(SET_UP)  ## other quantization tools on the demo, each in its own environment
	$(RUN)/python -m edgepress.benchmarks.peers

bench-families: $(SET_UP) $(PROCESSORS)  ## every text-to-image class of diffusers on a tiny random pipeline (CLASSES=…)
	$(RUN)/python -m edgepress.benchmarks.quantization.families $(CLASSES)

bench-conv: $(SET_UP)  ## what convolutions in 8 bits save and cost (writes to docs/recipes.md)
	$(RUN)/python -m edgepress.benchmarks.quantization.convolutions

bench-lora: $(SET_UP)  ## the demo's LoRA, merged and as an adapter (needs peft; writes to docs/lora.md)
	$(RUN)/python -m edgepress.benchmarks.quantization.lora

demo-lora: $(SET_UP)  ## train the demo's LoRA again, in demo/lora
	$(RUN)/python -m edgepress.demo.training.train_lora

bench-interop: $(SET_UP)  ## what other programs make of every export of weights, without edgepress
	$(RUN)/python -m edgepress.benchmarks.quantization.interop
	$(RUN)/python -m edgepress.benchmarks.interop
	$(RUN)/python -m edgepress.benchmarks.interop.gguf_rounding $(if $(GGML),--ggml "$(GGML)")

bench-interop-full-size: $(SET_UP)  ## a full-size GGUF in sd.cpp, which is built here (13 GB)
	$(RUN)/python -m edgepress.benchmarks.interop.full_size_gguf

open-clip: $(OPEN_CLIP)  ## install open_clip in build/open_clip, for the test that compares with it

# Not in .venv, because its torchvision would break the environment.
$(OPEN_CLIP): $(SET_UP)
	$(RUN)/pip install --quiet --no-deps --target build/open_clip --upgrade open-clip-torch==3.3.0 timm==1.0.31 \
		ftfy==6.3.1 wcwidth==0.9.4 torchvision==0.28.0
	@touch $@

# Not in .venv, for the same reason. Processors of several text encoders need torchvision, and some tokenizers the others.
$(PROCESSORS): $(SET_UP)
	$(RUN)/pip install --quiet --no-deps --target build/processors --upgrade torchvision==0.28.0 sentencepiece==0.2.1 \
		ftfy==6.3.1 wcwidth==0.9.4
	@touch $@

# Not in .venv: only a test reads the official schemas in it, and it brings twenty packages.
$(CYCLONEDX): $(SET_UP)
	$(RUN)/pip install --quiet --target build/cyclonedx --upgrade 'cyclonedx-python-lib[json-validation]==11.12.0'
	@touch $@

# Not in .venv: only tests of signing need it, and it brings twenty packages.
$(MODEL_SIGNING): $(SET_UP)
	$(RUN)/pip install --quiet --target build/model_signing --upgrade model-signing==1.1.1 pyOpenSSL==26.4.0
	@touch $@

# Not in .venv, because these packages would add their own: auto-round and what it imports, compressed-tensors, and
# comfy-kitchen without its kernels for GPUs. They use torch, diffusers and transformers of .venv. auto-round-lib has
# wheels for x86-64 only: elsewhere the tests that need it are skipped.
READER_PACKAGES := auto-round auto-round-lib compressed-tensors datasets dill loguru multiprocess pandas py-cpuinfo \
	python-dateutil xxhash
$(READERS): benchmarks/interop/readers.txt $(SET_UP)
	@rm -rf build/readers
	$(RUN)/pip install --quiet --no-deps --target build/readers --constraint $< $(READER_PACKAGES) && \
	$(RUN)/pip install --quiet --no-deps --target build/readers --upgrade --only-binary :all: --platform any \
		--constraint $< comfy-kitchen || echo "Installing the readers of exports failed." >&2
	@mkdir -p build/readers && touch $@

bench-onnx: $(SET_UP)  ## ONNX graphs in every precision and of ONNX Runtime's quantizers: speed, memory, size, quality
	$(RUN)/python -m edgepress.benchmarks.onnx.graphs

fuzz: $(SET_UP)  ## damaged files for every reader (CASES=10000 SEED=0; writes to docs/reliability.md)
	$(RUN)/python -m edgepress.benchmarks.reliability.fuzz --cases $(CASES) --seed $(SEED) --jobs $(JOBS)

tampering: $(SET_UP)  ## changes in every published file of ARTIFACTS, which verify must find (writes to docs/reliability.md)
	$(RUN)/python -m edgepress.benchmarks.reliability.tampering $(ARTIFACTS)

bench-artifacts: $(SET_UP) $(SET_UP_RKNN)  ## the demo's artifact for every recipe, as `make artifact` makes it, and its images against torch's
	$(RUN)/python -m edgepress.benchmarks.evaluation.device_artifacts $(RECIPES:%=--recipe %)

faults: $(SET_UP)  ## commands that fail at every operation on files (POINTS=0: all; writes to docs/reliability.md)
	$(RUN)/python -m edgepress.benchmarks.reliability.faults --points $(POINTS) --jobs $(JOBS) $(if $(VERB),--verb "$(VERB)")

verify-arm64: $(SET_UP)  ## exports of artifacts/pi5 on an emulated Cortex-A76: golden outputs and IMAGES images (2); writes the status
	$(RUN)/python -m edgepress.benchmarks.arm64 --images $(IMAGES)

bench-step-cache: $(SET_UP)  ## what skipping steps costs, with a step cache and with fewer steps (artifacts/pi5)
	$(RUN)/python -m edgepress.benchmarks.evaluation.step_cache

bench-openvino: $(SET_UP)  ## exported graphs in OpenVINO: which open, parity, 4-bit weights, speed (PIPELINE=demo)
	$(RUN)/python -m edgepress.benchmarks.openvino --pipeline $(PIPELINE)
	$(RUN)/python -m edgepress.benchmarks.openvino.optimum_intel

bench-onnx-options: $(SET_UP)  ## which session options compute INT4 products correctly (writes to docs/onnx.md)
	$(RUN)/python -m edgepress.benchmarks.onnx.session_options

bench-onnx-full-size: $(SET_UP)  ## exporting, loading and running full-size graphs (COMPONENT=…)
	$(RUN)/python -m edgepress.benchmarks.onnx.full_size --component $(COMPONENT)

bench-rknn: $(SET_UP) $(SET_UP_RKNN)  ## building and simulating full-size blocks for Rockchip's NPUs
	$(RUN)/python -m edgepress.benchmarks.rknn.blocks

bench-rknn-images: $(SET_UP) $(SET_UP_RKNN)  ## the demo's images on a simulated NPU in fp16, w8a8 and mixed precision
	$(RUN)/python -m edgepress.benchmarks.rknn.images

$(OLD_TARGET): bench-rknn-images

bench-rknn-folding: $(SET_UP) $(SET_UP_RKNN)  ## what scale folding gains for the demo in w8a8 on a simulated NPU
	$(RUN)/python -m edgepress.benchmarks.rknn.folding

clean:  ## remove artifacts and caches (the environments stay)
	rm -rf artifacts build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
