# make demo    install into .venv, then meta-train and evaluate on generated characters (no download)
# make test    install the test extras too, then ruff, pyright and pytest, a process for each core
# make docs    install what builds the pages too, then build them as a site in build/site
# make clean   remove .venv
#
# PYTHON names the interpreter to build .venv with (3.11 or newer); PYTEST adds arguments, e.g.
#   make test PYTEST="-k sampler"

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST ?=

.PHONY: demo test check docs clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/metafilm demo

test: check
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile $(PYTEST)

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: $(VENV)/.installed
	@$(PIP) install --editable '.[docs]'
	$(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python >= 3.11 found; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is not a Python >= 3.11 (`$(PYTHON) --version 2>&1`); name one: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; }
	@echo "Making $(VENV) with $(PYTHON)"
	@"$(PYTHON)" -m venv $(VENV) || { \
		rm -rf $(VENV); \
		echo "$(PYTHON) can't make virtual environments (on Debian: apt install python3-venv)" >&2; exit 1; }

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing metafilm (the first time this fetches PyTorch, which takes minutes)"
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml tests/requirements-learn2learn.txt | $(BIN)/python
	@echo "Installing metafilm with its test extras (the first time this fetches PyTorch, which takes minutes)"
	@$(PIP) install --upgrade 'pip>=23.1'  # older ones refuse --config-settings in a requirements file
	@$(PIP) install --editable '.[test]'
	@if command -v cc >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null; then \
		$(PIP) install --no-deps --requirement tests/requirements-learn2learn.txt; \
	else echo "No C compiler: learn2learn can't be built, the tests that compare with it are skipped" >&2; fi
	@touch $(VENV)/.installed $@
