# Needs make (GNU 3.81 or later) and Python 3.11 or later; everything else goes into $(VENV).
PYTHON = python3
VENV = .venv
NB =
RECORD =
TIMES = 10

IN_VENV = $(VENV)/bin/python
STAMP = $(VENV)/.set-up

# A relative folder is meant from where the command was given, which `make -C` leaves and PWD does not.
from_there = $(if $(or $(filter / /% ~%,$(firstword $(1))),$(findstring :,$(1))),$(1),$(PWD)/$(1))
ifneq ($(PWD),$(CURDIR))
ifneq ($(MINI_CACHE),)
override export MINI_CACHE := $(call from_there,$(value MINI_CACHE))
endif
ifneq ($(MINI_RESULTS),)
override export MINI_RESULTS := $(call from_there,$(value MINI_RESULTS))
endif
ifneq ($(filter-out digits plain-digits cifar10 cifar100,$(MINI_DATA)),)
override export MINI_DATA := $(call from_there,$(value MINI_DATA))
endif
endif

# As other processors round: with AVX2, with SSE alone, and in numpy's and MKL's own paths for any processor.
AS_AVX2 = ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 OPENBLAS_CORETYPE=Haswell
AS_SSE = ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41
AS_ANY = MKL_CBWR=COMPATIBLE OPENBLAS_CORETYPE=Nehalem \
  NPY_DISABLE_CPU_FEATURES=X86_V3,X86_V4,AVX512_ICL,AVX512_SPR,AVX2,FMA3,AVX512F,AVX512_SKX

.PHONY: help setup lab run reproduce test steady notebooks slides slides-pdf slides-check site scoreboard bench offline

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  NB=01_vit chooses one notebook for run, reproduce, notebooks and slides; PYTHON=python3.12 and VENV=folder"
	@echo "  choose the interpreter and the folder of the installation."

setup: $(STAMP) ## install everything into .venv (every other target does this first)
	@echo "Set up in $(VENV)."

$(STAMP): requirements.txt pyproject.toml
	@rm -f $@
	@$(PYTHON) -c "" >/dev/null 2>&1 || { \
	  echo "There is no $(PYTHON) here: install Python 3.11 or later, or name one (make setup PYTHON=python3.12)." >&2; exit 1; }
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { \
	  echo "$(PYTHON) is older than 3.11: install Python 3.11 or later, or name one (make setup PYTHON=python3.12)." >&2; exit 1; }
	@$(PYTHON) -c "import venv, ensurepip" >/dev/null 2>&1 || { \
	  echo "$(PYTHON) cannot make virtual environments: install its venv package (Debian, Ubuntu: apt install python3-venv)." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(IN_VENV) -m pip install --disable-pip-version-check -r requirements.txt
	-@$(IN_VENV) tools/vendor.py
	@touch $@

# Jupyter refuses root unless told; in a container root is the usual user.
AS_ROOT = $(shell test "$$(id -u)" = 0 && echo --allow-root)

lab: $(STAMP) ## open the course in JupyterLab
	JUPYTER_PATH="$(abspath $(VENV))/share/jupyter:$$JUPYTER_PATH" $(IN_VENV) -m jupyterlab $(AS_ROOT) --ServerApp.root_dir=. \
	  --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb

run: $(STAMP) ## execute every notebook into build/run/, without a browser, and show the verdicts
	@$(IN_VENV) tools/execute.py run $(NB)

reproduce: $(STAMP) ## every notebook at full scale on MINI_DATA, or its own; resumes, skips what is done
	@$(IN_VENV) tools/execute.py reproduce $(NB)

test: $(STAMP) ## lint, unit tests, and a strict run of every notebook
	$(IN_VENV) -m ruff check
	$(IN_VENV) -m ruff format --check
	$(IN_VENV) -m pytest --durations=10 --no-fold-skipped tests
	$(IN_VENV) -m pytest --durations=10 --nbval notebooks

offline: $(STAMP) ## the same as test, with the network cut (Linux)
	@unshare -rn true 2>/dev/null && command -v ip >/dev/null || { \
	  echo "Cutting the network needs Linux with unshare and ip (util-linux, iproute2), and the right to use them; make test guards its connections without them." >&2; exit 1; }
	unshare -rn sh -c 'ip link set lo up && exec "$$@"' cut $(MAKE) test

steady: $(STAMP) ## units and notebooks as other processors round; the notebooks TIMES times, with one thread and with two
	for as in '$(AS_AVX2)' '$(AS_SSE)' '$(AS_ANY)'; do \
	  echo "== $$as"; \
	  env $$as $(IN_VENV) -m pytest -q tests && env $$as $(IN_VENV) -m pytest -q --nbval notebooks || exit 1; done
	for i in $$(seq $(TIMES)); do \
	  MINI_THREADS=$$((2 - i % 2)) $(IN_VENV) -m pytest -q --nbval notebooks || exit 1; done

notebooks: $(STAMP) ## execute the notebooks in place, as they are committed
	@$(IN_VENV) tools/execute.py commit $(NB)

slides: $(STAMP) ## a talk of every notebook, one HTML file each, into build/slides/
	@$(IN_VENV) tools/slides.py build $(NB)

slides-pdf: $(STAMP) ## the same as PDF hand-outs (needs a Chromium or Chrome)
	@$(IN_VENV) tools/slides.py pdf $(NB)

slides-check: $(STAMP) ## open the talks in a browser, print what does not fit, picture every slide
	@$(IN_VENV) tools/slides.py check $(NB)

site: $(STAMP) ## the whole course as static pages, into build/site/
	@$(IN_VENV) tools/website.py

scoreboard: $(STAMP) ## fill the table in the README from results/
	@$(IN_VENV) tools/scoreboard.py

bench: $(STAMP) ## compare with other libraries, in benchmarks/
	@for script in $(filter-out benchmarks/turns.py,$(wildcard benchmarks/*.py)); do \
	  echo "== $$script"; $(IN_VENV) "$$script" $(RECORD) || exit 1; done
