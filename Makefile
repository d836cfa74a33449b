# make demo: the main job on the embedded baseline.  make test: everything CI runs.
# Both set themselves up: a virtual environment in .venv with the versions of constraints.txt.

PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
DEMO := build/demo

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_CONSTRAINT = $(CURDIR)/$(CONSTRAINTS)
export MYPYPATH = build/typing
export PYTHONDONTWRITEBYTECODE =  # tests start hundreds of processes: each would compile all of bitpatch again

.PHONY: demo test lint types tests trees coverage laws mutants diagonal drift fuzz pages bench clean

demo: $(READY)
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh .ci/demo $(DEMO)

test: lint types tests trees

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python .ci/budget

types: $(READY)
	mkdir -p build/typing && ln -sfn ../.. build/typing/bitpatch
	$(BIN)/mypy -p bitpatch.patches -p bitpatch.verify -m bitpatch.cli -m bitpatch.__main__

# Files of few tests, which take long, are not left to the end.
tests: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests --numprocesses 2 --dist loadfile --no-loadscope-reorder --sample

# Which branches no test takes: half as long again as the tests themselves. Judges run in processes of their own.
coverage: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/patches tests/test_cli.py --numprocesses 2 --dist loadfile \
		--cov --cov-report=term

# Evaluation, sampling and curves are the same files in both trees: they are tried in one.
trees: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/trees --tree baseline --numprocesses 2 --dist loadfile \
		--ignore tests/trees/test_evaluation.py --ignore tests/trees/test_generation.py --ignore tests/trees/test_curves.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/trees --tree reference --numprocesses 2 --dist loadfile

# Every check on every mutant that was written by hand: half an hour on two cores. Writes docs/mutants.md, and which checks
# tests are to try on each. Then generated ones, each until a check kills it: some hours, but results are kept, and what is
# stopped goes on the next time. Writes docs/mutants_generated.md, docs/mutants.json, and docs/mutants.html, a page of that.
mutants: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutants/matrix.py
	OMP_NUM_THREADS=1 BITPATCH_EVERY_TREE=1 $(BIN)/python -m pytest tests/mutants/test_mutants.py
	OMP_NUM_THREADS=1 PYTHONPATH=tests:tests/mutants $(BIN)/python -m generated.run

# Every order of every set of tasks, some minutes. Writes docs/laws.md. Then the laws on all the trees of which `make test`
# tries a part.
laws: $(READY)
	PYTHONPATH=tests $(BIN)/python tests/laws/cube.py docs/laws.md
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/laws tests/drift tests/patches/applying/test_survey.py --numprocesses 2

# Each judge on single tasks and on 40 random sets of them. Writes docs/diagonal.md.
diagonal: $(READY)
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python tests/laws/diagonal.py

# Every task on trees that have drifted and on forks that strangers wrote, some twenty minutes. Writes docs/drift.md.
drift: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/drift/cells.py docs/drift.md --judge 12

# A thousand trees, and as many programs, that nobody would write: most of an hour. CI tries a sample.
fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/fuzz --fuzz 1000 --programs 1000 --numprocesses 2 --timeout 36000

# A page a task, from its patch, its judge and the wrong patches that are known. Writes docs/tasks/.
pages: $(READY)
	PYTHONPATH=tests $(BIN)/python tests/pages/task_pages.py

# What is claimed of speed and memory, an hour on a quiet machine. Writes docs/benchmarks.md.
bench: $(READY)
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/training_speed.py
	$(BIN)/python benchmarks/training_speed.py --layers 8 --d_model 256 --seconds 240 --only all "all, dropout 0"
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/window_masks.py
	$(BIN)/python benchmarks/attention_race.py
	$(BIN)/python benchmarks/text_pipeline.py
	$(BIN)/python benchmarks/watched_scripts.py
	$(BIN)/python benchmarks/int8.py

# What is ready says so last, and what is set up anew is not ready: an install that fails or is interrupted runs again.
$(READY): pyproject.toml $(CONSTRAINTS)
	@echo "setting up $(VENV) with the versions of $(CONSTRAINTS), once; this takes some minutes"
	@rm -f $@
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --editable '.[all,dev]'
	@touch $@
	@echo "$(VENV) is ready"

clean:
	rm -rf $(VENV) build dist *.egg-info
