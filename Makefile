# The targets need make and Python 3.11 or newer; everything else they install into .venv.
# Another Python: `make PYTHON=python3.12 test`.

PYTHON ?= python3
VENV := .venv

# The extra of jax for the accelerator that is here; none for the CPU. Another one, or none:
# `make EXTRA=cuda12 quickstart`, `make EXTRA= quickstart`.
ifeq ($(origin EXTRA),undefined)
EXTRA := $(shell \
  if nvidia-smi >/dev/null 2>&1; then \
    nvidia-smi | grep -Eq 'CUDA[A-Z ]* Version: *(1[3-9]|[2-9][0-9])' && echo cuda13 || echo cuda12; \
  elif [ -e /dev/accel0 ] || { [ -e /dev/vfio/0 ] && \
      grep -qs 0x1ae0 /sys/bus/pci/devices/*/vendor; }; then \
    echo tpu; \
  fi)
endif
comma := ,
INSTALLED := $(VENV)/installed$(EXTRA:%=-%)

.PHONY: check quickstart quickstart-real tables test

quickstart: $(INSTALLED)
	$(VENV)/bin/python -m experiments.quickstart --out runs/quickstart

quickstart-real: $(INSTALLED)
	$(VENV)/bin/ltd fetch smollm2
	$(VENV)/bin/python -m experiments.quickstart --pair smollm2 --prompts 14 --new-tokens 96 \
	  --out runs/quickstart-real

tables: $(INSTALLED)
	$(VENV)/bin/python -m experiments.paper.all_tables --out runs/embedded \
	  --results experiments/results/embedded-cpu

test: $(INSTALLED)
	$(VENV)/bin/python -m pytest -q -rs -n 2 --dist loadfile --no-loadscope-reorder \
	  --max-worker-restart 0

check: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# An environment that is there is kept; only a missing or broken one is made. The .pth file lets
# `python -m experiments.NAME` of this environment start in any folder, not only in this one.
$(INSTALLED): pyproject.toml
	@$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || { \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Python 3.11 or newer is needed and '$(PYTHON)' is not; try make PYTHON=python3.12." >&2; \
	    exit 1; }; \
	  $(PYTHON) -m venv $(VENV) || { \
	    echo "'$(PYTHON)' cannot make $(VENV); install Python's venv and ensurepip modules." >&2; \
	    exit 1; }; }
	$(VENV)/bin/python -m pip install --quiet --editable '.[dev$(EXTRA:%=$(comma)%)]'
	@echo "$(CURDIR)" >"$$($(VENV)/bin/python -c \
	  'import sysconfig; print(sysconfig.get_path("purelib"))')/ltd-jax-checkout.pth"
	@touch $@
