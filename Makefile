# `make demo` and `make test` do all of their own set-up.
.PHONY: demo test fuzz setup lint docs docs-reference clean
BIN := .venv/bin

demo: setup
	@$(BIN)/python -m demo $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(if $(DATA),--data "$(DATA)") \
		$(if $(INPUT_SIZE),--input-size $(INPUT_SIZE))

test: setup lint
	@sh scripts/browser.sh
	@echo "== tests"
	@$(BIN)/python -m pytest -q -n $(or $(TEST_PROCESSES),2) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# Coverage-guided, FUZZ_SECONDS for each parser; what fell over is left in a folder that it names.
fuzz: setup
	@$(BIN)/python -c "import atheris" 2>/dev/null || $(BIN)/pip install -q atheris
	@$(BIN)/python -m tests.fuzz --seconds $(or $(FUZZ_SECONDS),60)

lint: setup
	@echo "== format and lint"
	@$(BIN)/ruff format --check -q . || { echo "kedge: run .venv/bin/ruff format ." >&2; exit 1; }
	@$(BIN)/ruff check -q .
	@echo "== types"
	@$(BIN)/mypy --no-error-summary
	@echo "== architecture"
	@$(BIN)/lint-imports --no-logo >.venv/lint-imports.log 2>&1 || { cat .venv/lint-imports.log; exit 1; }

# site/index.html, without internet; pages that are made from the code are made anew before.
docs: setup docs-reference
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q && echo "site/index.html"

docs-reference: setup
	@$(BIN)/python scripts/reference.py

setup:
	@sh scripts/setup.sh

clean:
	rm -rf .venv site demo/out demo/summary.json
