PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# A program or file, and the Debian package that brings it.
TOOLS := \
	gcc:gcc \
	g++:g++ \
	/usr/include/stdio.h:libc6-dev \
	cmake:cmake \
	arm-none-eabi-gcc:gcc-arm-none-eabi \
	/usr/lib/arm-none-eabi/newlib:libnewlib-arm-none-eabi \
	aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu \
	/usr/aarch64-linux-gnu/include/stdio.h:libc6-dev-arm64-cross \
	arm-linux-gnueabihf-gcc:gcc-arm-linux-gnueabihf \
	/usr/arm-linux-gnueabihf/include/stdio.h:libc6-dev-armhf-cross \
	qemu-system-arm:qemu-system-arm \
	qemu-arm:qemu-user
# For the tests of the pages that `niwaki report` writes.
BROWSER := chromium:chromium /usr/share/fonts/truetype/dejavu:fonts-dejavu-core
APT := DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends

.PHONY: help demo test toolchains browser clean

help:
	@echo "make demo    fine-tune a small network on the host and on an emulated Cortex-M7"
	@echo "make test    lint, type-check and run every test"
	@echo "make clean   remove what the two make: $(VENV), demo-out, caches"

demo: $(VENV)/installed-report toolchains
	$(BIN)/python examples/demo.py --out demo-out

test: $(VENV)/installed-dev toolchains browser
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/pytest -n 2 --dist worksteal

# Stamp files: installs once, and again when the dependencies change.
$(VENV)/installed-%: pyproject.toml | $(BIN)/python
	$(BIN)/pip install -q -e '.[$*]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Niwaki needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		if [ "$$(id -u)" = 0 ]; then apt-get update -q && $(APT) python3-venv; \
		else echo "Python cannot make virtual environments yet: sudo apt-get install -y python3-venv"; \
		exit 1; fi
	$(PYTHON) -m venv $(VENV)

# Cross compilers, emulators, browser. Without root, what needs them is left out.
define install-missing
@missing=; for pair in $(1); do \
		{ command -v $${pair%%:*} || [ -e $${pair%%:*} ]; } >/dev/null || \
			missing="$$missing $${pair##*:}"; \
	done; \
	[ -z "$$missing" ] && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -q && $(APT) $$missing; \
	else \
		echo "To $(2) too, run once:"; \
		echo "  sudo apt-get update && sudo apt-get install -y$$missing"; \
	fi
endef

toolchains:
	$(call install-missing,$(TOOLS),use the emulated devices)

browser:
	$(call install-missing,$(BROWSER),test pages in a browser)

clean:
	rm -rf $(VENV) demo-out build *.egg-info .pytest_cache .ruff_cache .hypothesis
