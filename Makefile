# The same verbs for people and for CI.
PY := .venv/bin/python
export ARCUATE_TIME_ZONE ?= Europe/Zurich

.PHONY: help setup check test accept demo bench docs clean
help:
	@echo "make demo    a synthetic morning through the real doors; prints the board's address"
	@echo "make test    all tests (installs what they use)"
	@echo "make setup   the Python environment alone"
	@echo "make check   format, lint, types, imports, compose file"
	@echo "make accept  the default install alone (no torch), and the proofs at full size: 200 kills, a ten-minute soak"
	@echo "make bench   speed, as ratios against limits measured in the same run"
	@echo "make docs    write the generated reference pages"

setup:
	@scripts/install

check:
	@scripts/install --tests
	@scripts/check

test:
	@scripts/install --tests $(TORCH)
	$(PY) -m pytest $(ARGS)

accept:
	@scripts/accept

demo: setup
	.venv/bin/arcuate demo $(ARGS)

bench:
	@scripts/install --tests
	$(PY) -m bench $(ARGS)

docs: setup
	@scripts/docs

clean:
	rm -rf build .mypy_cache .ruff_cache .pytest_cache
