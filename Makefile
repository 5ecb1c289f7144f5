# SPDX-License-Identifier: GPL-3.0-or-later
# `make help` lists what there is. Each target installs what it needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help python packages collection inventory lab-up lab-down demo unit properties exportfs server-dirs backup mutants lint lock docs-tables sanity package docs test test-long

WORK := .work
BIN := $(CURDIR)/$(WORK)/venv/bin
LAB := PYTHONPATH=$(CURDIR) $(BIN)/python -m lab
export PATH := $(BIN):$(PATH)
# Where it is set, as in some container images, each start of ansible-playbook and each of its tasks compiles all anew.
unexport PYTHONDONTWRITEBYTECODE
export ANSIBLE_CONFIG := $(CURDIR)/lab/ansible.cfg
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/$(WORK)/collections
export ANSIBLE_HOME := $(CURDIR)/$(WORK)/ansible

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

python:
	@scripts/prepare python

packages:
	@scripts/prepare packages

# The collection as users get it: built and installed, never the source tree.
collection: python
	@rm -rf $(WORK)/dist && ansible-galaxy collection build --force --output-path $(WORK)/dist > /dev/null
	@ansible-galaxy collection install --offline --no-deps --force -p $(WORK)/collections $(WORK)/dist/*.tar.gz > /dev/null
	@echo "installed $(WORK)/dist/$$(ls $(WORK)/dist) into $(WORK)/collections"

lab-up: python packages ## start the lab: server1, node1, node2 and a cluster (options: LAB_OPTIONS="--help")
	@$(LAB) up $(LAB_OPTIONS)

lab-down: python ## end the lab
	@$(LAB) down

# The example inventory, with the lab's machines in place of its hosts.
inventory: lab-up
	@rm -rf $(WORK)/inventory && cp -r inventory $(WORK)/inventory && $(LAB) inventory > $(WORK)/inventory/hosts.yml

demo: collection inventory ## bootstrap NFS storage on the lab, from bare machines to verified volumes
	@scripts/demo

unit: python ## unit and property tests, no lab; at least 95 % of the lines and of the branches of module_utils
	@$(BIN)/pytest -q tests/unit --cov=plugins/module_utils --cov-branch --cov-report= && $(BIN)/python scripts/covered.py

properties: python ## the property tests with 15 times as many examples, others each time; takes a quarter of an hour
	@$(BIN)/pytest -q tests/unit -m hypothesis --hypothesis-profile=search

mutants: python ## mutation testing of parsers and planners; takes hours
	@scripts/mutants

exportfs: python packages ## the server's code with the real exportfs, no lab
	@$(BIN)/pytest -q tests/exportfs

server-dirs: python packages ## volume_dirs on disks that the tests mount, with links, kills and faults; as root, no lab
	@$(BIN)/pytest -q tests/server_dirs

backup: python packages collection ## backup and restore of volumes with the real rsync and restic, kills and faults; as root, no lab
	@$(BIN)/pytest -q tests/backup

lint: python packages collection ## all static checks
	@scripts/lint

sanity: python ## ansible-test sanity and units, on the oldest and the newest ansible-core
	@scripts/sanity

docs-tables: python ## write the tables of variables in the READMEs of the roles
	@$(BIN)/python scripts/role_tables.py

package: collection ## what Galaxy and ansible-builder say of the built collection
	@scripts/package

docs: collection ## the documentation site, in .work/docs/html
	@scripts/docs

lock: python ## resolve the pins of pyproject.toml into requirements/
	@scripts/lock

test: ## CI: every behaviour once
	@scripts/test

test-long: ## CI's tests, and large counts, long drills, every version
	@scripts/test --long
