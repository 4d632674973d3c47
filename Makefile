# One command for each thing: `make run`, `make test`, `make lab`. The first call sets everything up.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PREPARED := $(VENV)/.prepared

.PHONY: run test lab lint setup notebooks pictures docs clean

run: setup
	$(BIN)/emolab run

test: setup  # a process for each core, one thread each: more threads would fight over them
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

lab: setup
	$(BIN)/emolab lab

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

notebooks: setup  # run all notebooks in place, outputs saved
	$(BIN)/python notebooks/execute.py

pictures: setup  # what README.md shows
	$(BIN)/emolab map data/pictures/map.png

docs: $(INSTALLED)  # API.md, from the docstrings
	$(BIN)/python .ci/reference.py

setup: $(INSTALLED) $(PREPARED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

$(PREPARED): $(INSTALLED)
	$(BIN)/emolab model get
	touch $@

clean:
	rm -rf $(VENV) out dist .pytest_cache .ruff_cache .hypothesis
