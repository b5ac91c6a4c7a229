# Targets for a fresh clone with nothing installed but Python and make.
PYTHON ?= python3
PY := .venv/bin/python
BACKEND := $(if $(TORCH_BACKEND),--torch-backend=$(TORCH_BACKEND),)
QUICK := COURSE_PROFILE=quick COURSE_PICTURES=sketches COURSE_BUDGET=all COURSE_MY="$(CURDIR)/.venv/my"

.PHONY: help lab test export bench runs lock clean

help:
	@echo "make lab     set up, and open the course in JupyterLab (make lab ARGS=--no-browser)"
	@echo "make test    set up, and run all tests (make test ARGS='-k browser')"
	@echo "make export  package from lessons, run the lessons, save and clean their outputs"
	@echo "make bench   how fast it is, side by side with others (needs the photographs; half an hour on two quiet cores)"
	@echo "make runs    make the reference runs that have no record yet"
	@echo "make lock    write requirements.lock anew from pyproject.toml"
	@echo "make clean   remove what the targets above made; keeps my/ and the photographs"
	@echo "TORCH_BACKEND=cpu or auto chooses the build of PyTorch"

.venv/ready: requirements.lock pyproject.toml
	@echo "Setting up .venv. The first time this downloads some 3 GB (TORCH_BACKEND=cpu: far less)."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed: make $(MAKECMDGOALS) PYTHON=python3.12, for example."; exit 1; }
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(PY) -m pip install -q --disable-pip-version-check "uv>=0.5"
	@$(PY) -m uv pip install --python $(PY) --compile-bytecode $(BACKEND) -r requirements.lock
	@$(PY) -m uv pip install --python $(PY) -q --no-deps -e .
	@touch $@

lab: .venv/ready
	@.venv/bin/course-lab $(ARGS)

test: .venv/ready
	@$(PY) -m pytest $(ARGS)

export: .venv/ready
	@.venv/bin/nbdev-export
	@rm -rf .venv/my
	@$(QUICK) .venv/bin/nbdev-test nbs/index.ipynb --save
	@$(QUICK) .venv/bin/nbdev-test --save --n-workers 1 --skip-file-re index
	@$(PY) tests/strip_outputs.py nbs
	@$(PY) tests/evidence.py
	@.venv/bin/nbdev-clean

bench: .venv/ready
	@$(PY) -W ignore tests/bench.py $(ARGS)

# The plan of data/README.md
SINGLE := baseline normalize resize mixup smooth
LADDER := $(SINGLE) normalize+resize normalize+resize+mixup normalize+resize+mixup+smooth
NOISY := $(foreach n,5 50,noise$(n) mixup+noise$(n) cutmix+noise$(n) smooth+noise$(n))
LEAKS := leak/redrawn/4 leak/fixed/4 leak/baseline/0 leak/redrawn/12 leak/fixed/12
BOTH := $(LADDER) resize+mixup+smooth normalize+mixup+smooth normalize+resize+smooth cutmix resize+longer
TRANSFERS := $(foreach n,5 20 100 all,$(foreach o,scratch frozen last all frozen+dense,transfer/$(o)/$(n))) \
  $(foreach n,5 20 100,transfer/features/$(n)) \
  $(foreach n,20 all,$(foreach o,all+bn frozen+raw frozen+sgd all+sgd all+resize,transfer/$(o)/$(n)))
DRAWN := $(foreach n,5 20 100,$(foreach o,scratch frozen last all,transfer/$(o)/$(n)))
OVERFIT := $(foreach o,plain dropout norm decay crops half all watch watch+noise50 watch+accuracy watch+noise50+accuracy,overfit/$(o))
AUGMENT := $(foreach n,20 100,$(foreach o,none flip full,augment/$(o)/$(n))) $(foreach o,doubled hurt elsewhere,augment/$(o)/100)
DIAGNOSES := $(OVERFIT) $(AUGMENT) $(foreach o,nothing sampling loss,imbalance/$(o)) $(foreach o,stem stage stem-thin stage-thin 32px,arch/$(o))
RATES := $(foreach o,0.0003 0.001 0.003 0.03 0.1 0.3,rate/$(o)) found/0.003x32x4 augment/none/all augment/flip/all
SEARCH := $(foreach o,0.003 0.01 0.03,$(foreach n,32 64 128,search/$(o)x$(n)x2 search/$(o)x$(n)x4))
TO := --seeds 0 1 2 3 4 --to data/runs --only
runs: .venv/ready
	@.venv/bin/course-run --profile quick --pictures sketches --budget all $(TO) $(LADDER)
	@.venv/bin/course-run --profile quick --pictures photos --budget all $(TO) baseline
	@.venv/bin/course-run --profile cpu --pictures photos --budget all $(TO) $(BOTH) nobn normalize+nobn $(LEAKS)
	@.venv/bin/course-run --profile cpu --pictures photos --budget few $(TO) $(BOTH) $(NOISY)
	@.venv/bin/course-run --profile cpu --pictures photos --budget all $(TO) $(TRANSFERS)
	@.venv/bin/course-run --profile cpu --pictures photos --budget all --seeds 0 --to data/runs --only transfer/own/all transfer/features/all
	@.venv/bin/course-run --profile cpu --pictures sketches --budget all $(TO) $(DRAWN)
	@.venv/bin/course-run --profile cpu --pictures photos --budget few $(TO) $(DIAGNOSES)
	@.venv/bin/course-run --profile cpu --pictures photos --budget all $(TO) $(RATES)
	@.venv/bin/course-run --profile cpu --pictures photos --budget all --seeds 0 --to data/runs --only $(SEARCH)
	@.venv/bin/course-run --profile cpu --pictures sketches --budget all --seeds 0 --to data/runs --only transfer/own/all

# torch and torchvision stand without hashes, and what only their CUDA builds need is left out, so that other builds fit.
lock: .venv/ready
	@$(PY) -m uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --no-annotate --upgrade --extra test pyproject.toml -o .venv/lock.txt
	@awk '/^[a-z]/ {drop = /^(nvidia|cuda|triton)/; bare = /^torch(vision)?==/} drop {next} \
	  bare && /--hash/ {next} bare {sub(/ \\$$/, "")} {print}' .venv/lock.txt > requirements.lock.tmp
	@mv requirements.lock.tmp requirements.lock

clean:
	rm -rf .venv .pytest_cache build dist *.egg-info data/cache data/sketches-* data/*.part
