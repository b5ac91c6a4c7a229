# Targets for a fresh clone with nothing installed but Python and make.
PYTHON ?= python3
PY := .venv/bin/python
QUICK := COURSE_PROFILE=quick COURSE_IMAGES=sketches COURSE_BUDGET=all COURSE_MY="$(CURDIR)/.venv/my"

.PHONY: help lab test export bench runs gpu lock clean

help:
	@echo "make lab     set up, and open the course in JupyterLab (make lab ARGS=--no-browser)"
	@echo "make test    set up, and run all tests (make test ARGS='-k browser')"
	@echo "make export  package from lessons, run the lessons, save and clean their outputs"
	@echo "make bench   how fast it is, side by side with others (needs the photographs; half an hour on two quiet cores)"
	@echo "make runs    make the runs of data/plan.toml that have no record yet (make runs ARGS=mixup)"
	@echo "make gpu     make the runs that need an NVIDIA GPU, in order of value; stop and resume as you like"
	@echo "make lock    write requirements.lock anew from pyproject.toml"
	@echo "make clean   remove what the targets above made; keeps my/ and the photographs"
	@echo "TORCH_BACKEND=cpu, auto or none chooses the build of PyTorch (none: what the lock says)"

.venv/ready: requirements.lock pyproject.toml
	@echo "Setting up .venv. The first time this downloads some 3.4 GB with CUDA, far less without."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed: make $(MAKECMDGOALS) PYTHON=python3.12, for example."; exit 1; }
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(PY) -m pip install -q --disable-pip-version-check "uv>=0.7.14"
	@backend=$$($(PY) authors/torch_backend.py) && \
	  $(PY) -m uv pip install --python $(PY) --compile-bytecode $${backend:+--torch-backend=$$backend} -r requirements.lock
	@$(PY) -m uv pip install --python $(PY) -q --no-deps -e .
	@touch $@

lab: .venv/ready
	@.venv/bin/course-lab $(ARGS)

test: .venv/ready
	@$(PY) -m pytest -n 3 --dist loadfile $(ARGS)

export: .venv/ready
	@.venv/bin/nbdev-export
	@rm -rf .venv/my
	@$(QUICK) .venv/bin/nbdev-test nbs/index.ipynb --save
	@$(QUICK) .venv/bin/nbdev-test --save --n-workers 1 --skip-file-re index
	@$(PY) authors/strip_outputs.py nbs
	@$(PY) authors/evidence.py
	@.venv/bin/nbdev-clean

bench: .venv/ready
	@$(PY) -W ignore authors/bench.py $(ARGS)

runs: .venv/ready
	@.venv/bin/course-run --plan $(ARGS)

gpu: .venv/ready
	@$(PY) -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "No NVIDIA GPU is seen: these runs would take days here.")'
	@.venv/bin/course-run --plan gpu-speedrun gpu-ladder gpu-leak gpu-mixup

# torch and torchvision stand without hashes, and what only their CUDA builds need is left out, so that other builds fit.
lock: .venv/ready
	@$(PY) -m uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --no-annotate --upgrade --extra test pyproject.toml -o .venv/lock.txt
	@awk '/^[a-z]/ {drop = /^(nvidia|cuda|triton)/; bare = /^torch(vision)?==/} drop {next} \
	  bare && /--hash/ {next} bare {sub(/ \\$$/, "")} {print}' .venv/lock.txt > requirements.lock.tmp
	@mv requirements.lock.tmp requirements.lock

clean:
	rm -rf .venv .pytest_cache build dist *.egg-info data/cache data/sketches-* data/*.part
