# Two commands: `make demo` runs the whole pipeline on a synthetic set, `make test` checks everything.
# Both make a virtual environment in .venv the first time; later they start at once, without network.
# It is made again when it does not work any more (another Python version came to its place), and when
# PYTHON names another interpreter: make PYTHON=python3.12 test
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install --disable-pip-version-check

# An interpreter: its file, outside of virtual environments, and its version.
ID := import os, sys; print(os.path.realpath(sys._base_executable), "%d.%d" % sys.version_info[:2])
NOW := $(shell $(RUN) -c '$(ID)' 2>/dev/null)
MADE := $(or $(shell cat $(VENV)/run 2>/dev/null),$(NOW))
TYPED := $(filter-out file default undefined,$(origin PYTHON))
WANTED := $(if $(TYPED),$(shell $(PYTHON) -c '$(ID)' 2>/dev/null),$(NOW))
STALE := $(if $(NOW),,none)$(if $(filter-out $(NOW),$(MADE) $(WANTED)),other)$(if $(WANTED),,none)

DEMO := Synthetic-SIRST
DEMO_RUN := runs/$(DEMO)/demo
# Half the paper's width and small crops: about 5 minutes on 2 CPU cores.
DEMO_TRAINING := --width 8 --crop 64 --batch-size 16 --epochs 22 --lr 4e-3 --eval-every 8

.PHONY: help demo test soak browser clean FORCE

help:
	@echo "make demo    the whole pipeline on a synthetic data set, about 10 minutes on 2 CPU cores"
	@echo "make test    the linter and the tests"
	@echo "make soak    the long tests: kills, faults, random input, memory; about 20 minutes on 2 CPU cores"
	@echo "make clean   remove the virtual environment, and the demo's data, run and results"

$(VENV)/run: requirements.txt $(if $(STALE),FORCE)
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or later is needed, this is %d.%d; name one: make PYTHON=python3.12" % sys.version_info[:2] if sys.version_info < (3, 10) else 0)'
	$(if $(STALE),$(PYTHON) -m venv --clear $(VENV))
	$(PIP) -r requirements.txt
	@$(RUN) -c '$(ID)' > $@

$(VENV)/dev: $(VENV)/run requirements-dev.txt
	$(PIP) -r requirements-dev.txt
	@touch $@

demo: $(VENV)/run
	$(RUN) synthetic.py
	$(RUN) utils.py --dataset $(DEMO)
	$(RUN) train.py --dataset $(DEMO) $(DEMO_TRAINING) --run-name demo $(if $(wildcard $(DEMO_RUN)/last.pt),--resume)
	$(RUN) test.py --dataset $(DEMO) --weights $(DEMO_RUN)/last.pt
	$(RUN) eval.py --dataset $(DEMO) --protocol all
	$(RUN) visualization.py --dataset $(DEMO)

test: $(VENV)/dev browser
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(RUN) -m pytest -n auto

# The full counts of what make test does a few times; ends with a table.
soak: $(VENV)/dev
	SOAK=1 HYPOTHESIS_PROFILE=soak $(RUN) -m pytest -n auto --dist loadfile -q \
	  tests/test_faults.py tests/test_fuzz.py tests/test_long.py tests/training/test_processes.py \
	  tests/training/test_resume.py

# Tests of the report need a browser; without one they are skipped, and say so.
browser:
	@if ! command -v chromedriver > /dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	  echo "installing chromium and chromium-driver, which the tests of the report use"; \
	  (apt-get -qq update && apt-get -qq -y install chromium chromium-driver) > /dev/null 2>&1 || echo "that failed"; \
	fi

clean:
	rm -rf $(VENV) data/$(DEMO) runs/$(DEMO) results/$(DEMO)
