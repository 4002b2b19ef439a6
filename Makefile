# Each target does its own set-up. Needed: git, make, Python 3.11 with its venv module.
PYTHON ?= python3.11
BIN := .venv/bin

# No dependency's usage reports, whatever is typed.
export BENTOML_DO_NOT_TRACK := True
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1

.PHONY: demo test check bench bento clean lock

demo: .venv/stamp
	$(BIN)/caremodels demo

test: .venv/spark
	$(BIN)/pytest -q -n 2 --doctest-modules data models training serving monitoring --ignore=serving/service.py
	$(BIN)/pytest -q -n 2 -m "not slow"
	$(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m slow

check: .venv/stamp
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: .venv/stamp
	$(BIN)/python benchmarks/demo.py
	$(BIN)/python benchmarks/marts.py
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/explain.py
	$(BIN)/python benchmarks/over_http.py
	$(BIN)/python benchmarks/drift.py
	$(BIN)/python benchmarks/watching.py
	$(BIN)/python benchmarks/watched.py
	$(BIN)/python benchmarks/estimates.py
	$(BIN)/python benchmarks/open_data.py

# The Bento carries the releases of ./var along; BENTOML_HOME says where Bentos are kept.
bento: .venv/stamp
	$(BIN)/bentoml build

# Byte code is compiled on first use: in one go it would double the time of the installation.
.venv/stamp: requirements.lock pyproject.toml
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --no-deps --require-hashes -r requirements.lock
	$(BIN)/pip check
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --no-deps --no-build-isolation --editable .
	touch $@

# Spark's extra, which only those need who have a cluster, and the tests.
.venv/spark: requirements-spark.lock .venv/stamp
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --no-deps --require-hashes -r requirements-spark.lock
	touch $@

# After a change of dependencies. No registry's name goes into a lock.
LOCK := uv pip compile --python-version 3.11 --generate-hashes --no-header
lock:
	$(LOCK) pyproject.toml --extra dev --extra postgres --output-file requirements.lock
	echo "pyspark>=4.1,<5" | $(LOCK) - --constraint requirements.lock --output-file requirements-spark.lock

clean:
	rm -rf .venv var
