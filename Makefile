# The project's commands. Each first installs what is missing (see scripts/setup.sh) and may be run again and again.
.PHONY: help setup run stop test lint format bench clean

BIN := .venv/bin
# The region of `make run`; `make run DATA=/elsewhere PORT=4600` plays it somewhere else.
DATA ?=
PORT ?= 4577
BOREALIS := $(BIN)/borealis $(if $(DATA),--data $(DATA))

help:
	@echo "make run     install what is missing, start a region in the background, play the demonstration"
	@echo "make stop    stop that region"
	@echo "make setup   only install what is missing (leaves .venv/bin/borealis)"
	@echo "make test    install, then run the whole test suite"
	@echo "make lint    ruff and mypy --strict"
	@echo "make bench   measure, side by side with stock engines (results in bench/results)"
	@echo "make clean   remove what was built"

setup:
	@sh scripts/setup.sh

run: setup
	@$(BOREALIS) up --detach --port $(PORT)
	@$(BOREALIS) demo

stop:
	@$(BOREALIS) down

test: setup
	$(BIN)/pytest -n 4 --dist loadgroup $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(BIN)/python -m bench $(ARGS)

clean:
	rm -rf .venv build dist borealis.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f borealis/_native/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
