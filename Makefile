# `make` alone explains every target.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup lab test build lint bench clean

VENV := $(or $(COURSE_VENV),.venv)
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
WORKERS ?= 2
PYTEST ?=
LAB ?=

help: ## explain the targets (this text)
	@echo "The course's targets; each one first installs what it needs (binder/setup)."
	@echo
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "  make %-7s %s\n", $$1, $$2 }'
	@echo
	@echo "Options: make lab LAB='--port 9000 --no-browser'   make test PYTEST='-k qmp'   WORKERS=1"

setup: # what students need: system packages, .venv, the package
	@binder/setup all

.PHONY: setup-tests
setup-tests:
	@binder/setup all --tests

lab: setup ## install what is missing and open JupyterLab on the lessons
	@course lab $(LAB)

test: setup-tests ## run the whole test suite, the notebooks of source/ included
	@course guest build
	pytest $(if $(wildcard source/*/*.ipynb),--nbval -p tests.notebooks.updates --nbval-sanitize-with tests/notebooks/sanitize.cfg --nbval-cell-timeout 300) \
	    -n $(WORKERS) --dist loadfile $(PYTEST) tests $(if $(wildcard source/*/*.ipynb),source)

build: setup-tests ## make source/ and release/ from the lessons' texts
	@course build

lint: setup-tests ## check style, types, spelling, the lessons' form, and that generated files are up to date
	ruff check .
	ruff format --check .
	mypy
	codespell
	python -m course.build.lint
	course build --check

bench: setup-tests ## measure: boot, QMP, build; prints ratios
	@python -m tests.bench

clean: ## remove what was made here: .venv, caches, test artefacts (not source/, release/ or anyone's work)
	rm -rf .venv .stamps .artifacts .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
