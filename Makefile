# make demo [VIDEO=me.mp4 AUDIO=speech.wav RUN=runs/me]   the whole way
# make demo-from-scratch [...]   the same without the base of many people
# make test | lint | test-slow | test-optimized | bench
# make gpu DATA=data/me [MINUTES=12]   the paper's sizes on the GPU that is here
# make compile-tpu   the paper's sizes on four TPU slices; no TPU needed
# make test-torch   beside PyTorch's networks; installs torch in the venv
# make bench-peers  times ours beside PyTorch's; installs torch in the venv
VENV ?= .venv
PYTHON ?= python3
export VIDEO AUDIO RUN DATA OUT MINUTES
BIN := $(VENV)/bin

SLICES ?= v5e:4x4,v5e:16x16,v6e:16x16,v5p:8x8x8
.PHONY: demo demo-from-scratch test test-slow test-optimized test-torch bench bench-peers gpu compile-tpu lint format setup

# The shell, not make, expands the names: spaces and quotes are safe.
demo: $(VENV)/installed
	$(BIN)/python -m pir_jax.demo --video="$$VIDEO" --audio="$$AUDIO" --run="$$RUN"

demo-from-scratch: $(VENV)/installed
	$(BIN)/python -m pir_jax.demo --video="$$VIDEO" --audio="$$AUDIO" \
	  --run="$${RUN:-runs/demo-from-scratch}" --scratch

test: $(VENV)/ready
	$(BIN)/python -m pytest -m "not slow and not torch" -n 2 --dist loadfile -q

# `test` compiles without most of XLA's optimisations, which is quicker.
test-optimized: $(VENV)/ready
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(BIN)/python -m pytest tests/ops \
	  tests/geometry -m "not slow and not torch" -n 2 --dist loadfile -q

test-slow: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --editable '.[dev,ray,browser,notebook]'
	$(BIN)/python -m pytest -m "slow and not torch" -q

test-torch: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --editable '.[peers]'
	$(BIN)/python -m pytest -m torch -q -rP

bench: $(VENV)/ready
	$(BIN)/python -m pir_jax.benchmark expression
	$(BIN)/python -m pir_jax.benchmark triplane
	$(BIN)/python -m pir_jax.benchmark inpainting

bench-peers: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --editable '.[peers]'
	$(BIN)/python -m experiments.peers

gpu: $(VENV)/installed
	$(BIN)/python -m experiments.on_gpu --data="$$DATA" --output="$${OUT:-on_gpu}" \
	  --minutes="$${MINUTES:-12}"

compile-tpu: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --editable '.[tpu-aot]'
	@code=0; for stage in expression triplane inpainting; do \
	  $(BIN)/python -m pir_jax.compile --config=experiments/$$stage.py \
	    --topology=$(SLICES) --per_device=8 || code=1; \
	done; exit $$code

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(VENV)/ready

# What the demo needs, without the tools of the tests.
$(VENV)/installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "pir_jax needs Python 3.11 or newer: say make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@# What is imported is compiled then, and not all that is installed.
	$(BIN)/python -m pip install --quiet --no-compile --editable .
	@touch $@

$(VENV)/ready: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@
