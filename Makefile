# Everything on a fresh machine with git, make and Python 3.10 or newer.
#
#   make report                          all lessons, one HTML report (profile quick, about 12 minutes on 2 cores)
#   make report PROFILE=smoke OUT=runs/x another size, another place
#   make report WORLD=mine.toml          your own teacher and speech; WORLD=librispeech: HuBERT Base, human speech
#   make report PROFILE=full             the models made from nothing too: 3 to 6 hours; when stopped, it goes on if made again
#   make wheel STICK=stick               the kit and all it needs in a folder, for machines without internet
#   make report PROFILE=paper            the paper's sizes: models on all GPUs (accelerate), then the notebooks with them
#   make test                            lint, unit tests, all notebooks in profile smoke
#   make test TORCH=oldest               the same with the oldest versions that pyproject.toml allows, on Python 3.10
#   make test TORCH=newest               the same with the newest, in an environment of its own, as each of them
#   make report CPU=1                    when the environment is made: torch without CUDA, 4.2 GB less on Linux
#
# Corpora are kept in $KDKIT_CACHE (default: ~/.cache/kdkit). Another Python: make test PYTHON=python3.12

PROFILE ?= quick
WORLD ?= $(if $(filter paper,$(PROFILE)),librispeech)
OUT ?= runs/$(PROFILE)$(if $(WORLD),-$(basename $(notdir $(WORLD))))
TORCH ?= pinned
CPU ?=
CPU_INDEX ?= https://download.pytorch.org/whl/cpu
VENV ?= .venv$(if $(filter-out pinned,$(TORCH)),-$(TORCH))
PYTHON ?= $(if $(filter oldest,$(TORCH)),python3.10)
WORKERS ?= 2
MINUTES ?= 10
SEED ?= 1
STICK ?= stick
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help report lab wheel test attack lint format notebooks install clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

REPORT = $(BIN)/kdkit report --profile $(PROFILE) $(if $(WORLD),--world $(WORLD)) --out $(OUT)

report: $(STAMP)  ## run the notebooks, write one HTML report (PROFILE=quick WORLD=toy OUT=runs/quick)
ifeq ($(PROFILE),full)
	$(BIN)/python data_scripts/make_models.py --out $(OUT)-models
	KDKIT_ASSETS=$(abspath $(OUT)-models/assets) $(REPORT) --resume
else ifeq ($(PROFILE),paper)
	$(BIN)/accelerate launch data_scripts/make_models.py --world $(WORLD) --out $(OUT)-models
	KDKIT_ASSETS=$(abspath $(OUT)-models/assets) $(REPORT) --resume
else
	$(REPORT)
endif

lab: $(STAMP)  ## JupyterLab on the first notebook
	$(BIN)/jupyter lab notebooks/01_teacher_probing.ipynb

# pip install --no-index --find-links stick 'kdkit[lab]' then needs no network. What is packed is for machines with this
# system and this Python.
wheel: $(STAMP)  ## the kit and all it needs in a folder, for machines without internet (STICK=stick CPU=1)
	rm -f $(STICK)/kdkit-*.whl
	$(BIN)/python -m pip wheel --disable-pip-version-check --no-deps --wheel-dir $(STICK) .
	$(BIN)/python -m pip download --disable-pip-version-check --only-binary :all: --dest $(STICK) -c $(CONSTRAINTS) \
		$(if $(CPU),--extra-index-url $(CPU_INDEX)) \
		"$$(ls $(STICK)/kdkit-*.whl)[lab,decoding]"
	cp -R notebooks docs $(STICK)/

# A file of tests stays on one worker; tests/conftest.py puts the notebooks first. One thread a worker.
test: $(STAMP) $(if $(filter pinned,$(TORCH)),lint)  ## lint, unit tests and all notebooks in profile smoke (TORCH=pinned)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

attack: $(STAMP)  ## ten minutes of damaged files, odd options, kills and full disks (SEED=1 MINUTES=10)
	$(BIN)/python tests/attack --minutes $(MINUTES) --seed $(SEED) --jobs $(WORKERS)

lint: $(STAMP)  ## ruff, and do the notebooks agree with their sources?
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python notebooks/pair.py check

format: $(STAMP)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks: $(STAMP)  ## make notebooks/*.ipynb from notebooks/src/*.py
	$(BIN)/python notebooks/pair.py sync

install: $(STAMP)  ## only the environment (CPU=1: torch without CUDA)

clean:  ## remove the environment and what tools left; reports in runs/ stay
	rm -rf $(VENV) .venv-oldest .venv-newest build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# The stamp is written last, so that an install that was stopped is done again.
$(STAMP): pyproject.toml constraints.txt .ci/oldest.txt
	@sh .ci/environment $(VENV) $(PYTHON)
	@PIP_DISABLE_PIP_VERSION_CHECK=1 sh .ci/install $(VENV) $(TORCH) $(if $(CPU),$(CPU_INDEX))
	@touch $@
