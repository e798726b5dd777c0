# `make demo` and `make test` do all of their own set-up.
.PHONY: demo test setup lint docs-tables clean
BIN := .venv/bin

demo: setup
	@$(BIN)/python -m demo $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(if $(DATA),--data "$(DATA)") \
		$(if $(INPUT_SIZE),--input-size $(INPUT_SIZE))

test: setup lint
	@echo "== tests"
	@$(BIN)/python -m pytest -q $(PYTEST_ARGS)

lint: setup
	@echo "== format and lint"
	@$(BIN)/ruff format --check -q . || { echo "kedge: run .venv/bin/ruff format ." >&2; exit 1; }
	@$(BIN)/ruff check -q .
	@echo "== types"
	@$(BIN)/mypy --no-error-summary
	@echo "== architecture"
	@$(BIN)/lint-imports --no-logo >.venv/lint-imports.log 2>&1 || { cat .venv/lint-imports.log; exit 1; }

setup:
	@sh scripts/setup.sh

clean:
	rm -rf .venv demo/out demo/summary.json
