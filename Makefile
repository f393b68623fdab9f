# Needs Python >= 3.11, pip and make; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo-output

.PHONY: demo test check format docs bench clean

# the package alone
$(BIN)/siglip: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

# and what tests, checks and benchmarks need; open_clip and timm ask for a torchvision that does not fit a CPU torch
$(VENV)/dev: $(BIN)/siglip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps open_clip_torch timm
	@touch $@

demo: $(BIN)/siglip
	$(BIN)/siglip classify samples --labels-file samples/labels.txt --top 1 --sheet $(DEMO)/sheet.png
	$(BIN)/siglip caption samples
	$(BIN)/siglip ask samples "what color is it?"
	$(BIN)/siglip score samples/penguin.png samples/teddy_bear.png samples/bicycle.png samples/cat.jpg \
		--texts penguin "teddy bear" bicycle cat
	$(BIN)/siglip index samples --library $(DEMO)/library
	$(BIN)/siglip search "a beagle" --library $(DEMO)/library --all --top 6 --html $(DEMO)/found.html
	@echo
	@echo "The pictures with their best labels are drawn in $(DEMO)/sheet.png; the search is a page, $(DEMO)/found.html"
	@echo "To go on, put the command on your path: source $(VENV)/bin/activate"
	@echo "Or call it where it is, for example:     $(BIN)/siglip classify samples/cat.jpg --labels cat dog"

# one process a core, of one thread each; many start others, which need not compile what they import every time
test: $(VENV)/dev
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses auto --dist worksteal

check: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: $(VENV)/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# runs the examples of README.md and docs/ again and writes what they print below them
docs: $(VENV)/dev
	$(BIN)/python -m tests.update_examples

bench: $(VENV)/dev
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) $(DEMO) build dist *.egg-info
