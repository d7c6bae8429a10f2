# Every target sets up what it needs: `make demo` and `make test` are all that a fresh machine takes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test slow check bench fuzz proto prototxts docs clean

demo: $(VENV)/demo
	@$(BIN)/python tools/demo.py

test: $(VENV)/test
	$(BIN)/python -m pytest

slow: $(VENV)/test
	$(BIN)/python -m pytest --slow

check: $(VENV)/dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

bench: $(VENV)/test
	$(BIN)/python tools/bench/convert.py

# FOR=300 seconds of each target; atheris has no wheels for every Python, and the tool does without it.
fuzz: $(VENV)/test
	-$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[fuzz]'
	for target in caffemodel prototxt binaryproto hdf5 npz image net; do \
		$(BIN)/python tools/fuzz.py --target $$target --seconds $(or $(FOR),60) || exit 1; done

proto: $(VENV)/test
	$(BIN)/python tools/make_pb2.py

prototxts: $(VENV)/demo
	$(BIN)/python tools/make_prototxts.py

docs: $(VENV)/demo
	$(BIN)/python tools/make_docs.py

clean:
	rm -rf $(VENV) out build *.egg-info

$(VENV)/demo: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	@touch $@

$(VENV)/test: $(VENV)/demo
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test]'
	@touch $@

$(VENV)/dev: $(VENV)/test
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test,dev]'
	@touch $@
