# Two commands for a stranger: `make demo` and `make test`. A second call installs nothing.
PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt

.PHONY: demo test test-faults mutants lint docs dist sbom constraints clean

demo: .venv/demo.installed  ## install, then distill a digits student from the teacher that ships with nayer
	$(BIN)/nayer distill

test: .venv/dev.installed  ## install the development extras, then run the whole suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow"

test-faults: .venv/dev.installed  ## every proof of docs/concepts/reliability.md: more kills, longer runs, more inputs
	OMP_NUM_THREADS=1 HYPOTHESIS_PROFILE=thorough $(BIN)/python -m pytest -n $(WORKERS) tests/faults tests/test_fast_paths.py

mutants: .venv/dev.installed  ## FILES="src/…": change them in small ways, and show what no test beside them notices
	$(BIN)/python tools/mutants.py $(FILES)

lint: .venv/dev.installed  ## style, types, and which layer may import which
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/dev.installed  ## write the reference from the program, then build the site into docs/_site, without a connection
	$(BIN)/python tools/write_docs.py
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs docs/_site

dist: .venv/dev.installed  ## the man page, the source distribution, and a wheel that is built from it
	$(BIN)/sphinx-build --quiet --fail-on-warning -b man docs build/man
	$(BIN)/uv build --quiet --out-dir dist

sbom: dist  ## what the package brings along, as a CycloneDX document
	$(BIN)/uv venv --quiet --clear build/alone
	$(BIN)/uv pip install --quiet --python build/alone --constraint constraints.txt dist/*.whl
	$(BIN)/uv tool run --quiet --from 'cyclonedx-bom>=7,<8' cyclonedx-py environment build/alone/bin/python \
		--pyproject pyproject.toml --output-file build/sbom.cdx.json

constraints: .venv/dev.installed  ## pin today's newest versions that satisfy pyproject.toml
	$(BIN)/uv pip compile --quiet --upgrade pyproject.toml --all-extras --universal --python-version 3.11 \
		--no-header --no-annotate --no-emit-package nayer-cli --output-file constraints.txt

clean:
	rm -rf .venv

.venv/%.installed: pyproject.toml constraints.txt | .venv/bin/uv
	$(INSTALL) --editable '.[$*]'
	touch $@

.venv/bin/uv:
	$(PYTHON) -c 'import sys; sys.exit("nayer needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check uv
