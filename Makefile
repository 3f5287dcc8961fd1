# Everything a learner or contributor starts. The logic lives in `moe-course` (moe_course/command/launch.py); on Windows call that.
#   make lab ARGS="--port 9000"      ARGS go to JupyterLab        make test ARGS="-k router"    ARGS go to pytest

VENV  ?= .venv
BIN   := $(VENV)/bin
READY := $(VENV)/.ready
ARGS  ?=

# The first interpreter that the lock covers; else python3, whatever it is, for `setup` to judge. `make PYTHON=...` decides.
# ensurepip is what Debian splits off into python3-venv.
SUPPORTED := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
ifeq ($(origin PYTHON),undefined)
PYTHON := $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c '$(SUPPORTED)' 2>/dev/null && echo $$python && exit; done; echo python3)
endif

.DEFAULT_GOAL := help
.PHONY: help setup lab test test-all check format site graders-report results images lock

help:  ## Show this list
	@sed -n 's/^\([a-z-]*\): .*## \(.*\)/make \1|\2/p' Makefile | awk -F '|' '{ printf "  %-20s %s\n", $$1, $$2 }'
	@echo "What you have passed: $(BIN)/moe-course status; more commands: $(BIN)/moe-course --help"

setup: $(READY) ## Create .venv and install the pinned packages (the others do this by themselves)
	@echo "$(BIN)/moe-course is ready."

lab: $(READY) ## Open the course in JupyterLab, in your own copy of the notebooks (work/)
	@$(BIN)/moe-course lab $(ARGS)

test: $(READY) ## Run the tests: three seeds, notebooks at their small settings, the browser
	@$(BIN)/moe-course test $(ARGS)

test-all: $(READY) ## Run all tests: twenty seeds, notebooks in full
	@$(BIN)/moe-course test --all $(ARGS)

check: $(READY) ## Formatting, lint, types, freshness of notebooks/, quick tests
	@$(BIN)/moe-course quality

format: $(READY) ## Format the code and repair what the linter can
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

site: $(READY) ## The course as a web site, in build/site: notebooks with answers, glossary, documents (minutes)
	@$(BIN)/moe-course site $(ARGS)

graders-report: $(READY) ## Measure the graders on wrong answers, right ones and mutants, into docs/graders.md
	@$(BIN)/python -m moe_course.authoring.graders_report $(ARGS)

results: $(READY) ## Do the experiment's runs that have no record (over six hours of processor time for all), and write the page
	@$(BIN)/moe-course results $(ARGS)

# Written last, so an interrupted installation is never taken for a finished one. It holds the checkout's path: scripts
# in a .venv name their interpreter by its full path, so after a move everything is set up anew; likewise when the Python
# it was made with is gone.
ifneq ($(shell $(BIN)/python -c '' 2>/dev/null && cat $(READY) 2>/dev/null),$(CURDIR))
.PHONY: $(READY)
endif

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "The course needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo missing)." >&2; \
		echo "Install one (python.org, or: apt install python3.11 python3.11-venv), then: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; \
		exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "'$(PYTHON)' cannot make virtual environments: its modules venv and ensurepip are missing." >&2; \
		echo "On Debian and Ubuntu: sudo apt install python3-venv   (then run the same make command again)" >&2; \
		exit 1; }
	@echo "Setting up the course in $(VENV) with $$($(PYTHON) --version). This happens once and takes a few minutes:"
	@echo "about 0.4 GB to download, on Linux 3 GB (its PyTorch brings CUDA along). Safe to interrupt and to repeat."
	@test ! -e $(READY) || test "$$(cat $(READY))" = "$(CURDIR)" || rm -rf $(VENV)
	@rm -f $(READY)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	@printf '%s\n' "$(CURDIR)" > $(READY)

images:  ## Build the container images, where docker or podman answers
	@for engine in docker podman; do $$engine info >/dev/null 2>&1 && break; engine=; done; \
	if [ -z "$$engine" ]; then echo "Neither docker nor podman answers here: no image was built."; exit 0; fi; \
	for target in packages course hub; do \
		$$engine build --file containers/Containerfile --target $$target --tag moe-course-$$target . || exit 1; done

# One set of versions for Python 3.11-3.13 on Linux, macOS and Windows. What CUDA needs is left to PyTorch's own metadata,
# so that a CPU build installs without it. `make lock ARGS=--upgrade` takes the newest versions; environment.yml follows by
# hand (a test says which lines). The extras that are left out serve one option of `train` each.
EXTRAS := oracles cluster grading site dev
lock: $(READY) ## Write requirements.lock anew from pyproject.toml
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile pyproject.toml $(EXTRAS:%=--extra %) --universal --python-version 3.11 --fork-strategy fewest \
		--no-annotate --custom-compile-command "make lock" --quiet --output-file requirements.lock $(ARGS)
	@grep -vE '^(nvidia-|cuda-|triton)' requirements.lock > requirements.lock.new && mv requirements.lock.new requirements.lock
