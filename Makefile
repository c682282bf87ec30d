# Thin fronts: the work is in xtask/*.sh and in the programs they start.
#   make test     everything: formatting, lints, unit tests, packages, and the promises on real hosts (needs root)
#   make demo     a controller and a server with a WordPress site, shown from end to end; KEEP=0 ends after the proof
#   make deb      the three packages, into dist/
#   make bench    beside restic, rustic and borg on the same data; SETS=linux,hosting,media,dumps TOOLS=backstay,restic RUNS=5
#   make fuzz     foreign bytes for every parser of stored bytes; SECS=60 TARGETS=header,page
#   make bench SETS=scale    how memory and time grow up to COUNTS="10000 100000 1000000 10000000" files
#   make setup    installs what all of the above need; they call it themselves
# What is built or fetched is kept in BACKSTAY_CACHE, outside the tree (default: /var/cache/backstay).

export BACKSTAY_CACHE ?= /var/cache/backstay
export CARGO_TARGET_DIR ?= $(BACKSTAY_CACHE)/target
export PATH := $(BACKSTAY_CACHE)/tools/bin:$(PATH)
KEEP ?= 1

.PHONY: help setup demo test bench fuzz deb fmt lint clean

help:
	@sed -n 's/^#   //p' Makefile

setup:
	@xtask/setup.sh

demo: setup deb
	@KEEP=$(KEEP) xtask/demo.sh

test: setup
	@xtask/test.sh

bench:
	@SETS="$(SETS)" TOOLS="$(TOOLS)" RUNS="$(RUNS)" COUNTS="$(COUNTS)" xtask/bench.sh

fuzz:
	@SECS="$(SECS)" TARGETS="$(TARGETS)" xtask/fuzz.sh

deb:
	@xtask/deb.sh

fmt:
	cargo fmt --all

lint:
	@xtask/lint.sh

clean:
	@xtask/clean.sh
