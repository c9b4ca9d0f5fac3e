# Everything for a machine without a ROS 2 distribution: a virtual environment from PyPI that is a ROS prefix, the
# package built in it with colcon, the demo and the tests. On a machine with a distribution use colcon and ros2 launch.

SHELL := /bin/bash
VENV := $(CURDIR)/.venv
PYTHON ?= python3
# torch's own index is not needed: 2.13.0 is pinned in constraints.txt.
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
SOURCES := $(shell find loftr_ros msg srv launch config scripts -type f -not -name '*.pyc' 2>/dev/null)
RUN := . scripts/environment.sh &&

.PHONY: help install build demo test test-slow accuracy accuracy-gcm odometry speed lint format docs clean

help:
	@echo 'make demo       set up all, render a robot drive, run the node over DDS, write demo/'
	@echo 'make test       set up all and run the tests'
	@echo 'make test-slow  the heavy tests: parity with peers, engines, ONNX files, a cluster of Ray'
	@echo 'make accuracy   compare the matchers with SIFT and ORB (needs ../shared/data), some ten minutes'
	@echo 'make accuracy-gcm  backbones and descriptors of gcm on planes (needs ../shared/data), some ten minutes'
	@echo 'make speed      time of a pair, a video frame and a pose beside SIFT (needs ../shared/data), a minute'
	@echo 'make odometry   drift of the odometry with SIFT and ORB (needs ../shared/data), a quarter of an hour'
	@echo 'make lint       check style'
	@echo 'make docs       regenerate config/default.yaml and docs/parameters.md'
	@echo 'make build      only set up: .venv and the ROS package in install/'
	@echo 'make clean      remove all that the other targets made'

install: $(VENV)/.installed
build: install/.built

$(VENV)/.installed: setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "needs Python 3.10 or later, got $$($(PYTHON) --version); run make PYTHON=python3.11"; exit 1; }
	@for tool in g++ make; do command -v $$tool > /dev/null || { echo "needs $$tool: apt install g++ make python3-venv python3-dev"; exit 1; }; done
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV) || { echo 'needs venv: apt install python3-venv'; exit 1; }
	@echo 'Installing ROS 2 and the Python packages into .venv (once, a minute or two)'
	$(PIP) install --quiet --constraint constraints.txt --editable '.[ros,dev]'
	@touch $@

$(VENV)/.parity: $(VENV)/.installed
	@echo 'Installing the peers and engines that the slow tests compare with'
	$(PIP) install --quiet --constraint constraints.txt --editable '.[ros,dev,parity]'
	@touch $@

install/.built: $(VENV)/.installed CMakeLists.txt package.xml $(SOURCES)
	@echo 'Building the ROS package into install/'
	@mkdir -p log
	@. scripts/environment.sh && colcon --log-base log build --symlink-install \
	  --cmake-args -DPython3_EXECUTABLE=$(VENV)/bin/python -DBUILD_TESTING=OFF \
	  > log/build.txt 2>&1 || { cat log/build.txt; exit 1; }
	@touch $@

demo: build
	@$(RUN) python -m loftr_ros.cli demo --output demo

test: build
	@$(RUN) python -m pytest $(ARGS)

test-slow: build $(VENV)/.parity
	@$(RUN) python -m pytest -m slow $(ARGS)

accuracy: build
	@$(RUN) python benchmarks/accuracy.py ../shared/data $(ARGS)

odometry: build
	@$(RUN) python benchmarks/odometry.py ../shared/data $(ARGS)

accuracy-gcm: build
	@$(RUN) python benchmarks/gcm.py ../shared/data $(ARGS)

speed: build
	@$(RUN) python benchmarks/speed.py ../shared/data $(ARGS)

lint: install
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .

format: install
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

docs: install
	@$(VENV)/bin/python -m loftr_ros.cli parameters --yaml > config/default.yaml
	@$(VENV)/bin/python -m loftr_ros.cli parameters --markdown > docs/parameters.md

clean:
	rm -rf $(VENV) build install log demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
