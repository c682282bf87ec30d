#!/bin/bash
# Formatting and lints; any warning is a failure.
set -euo pipefail
. "$(dirname "$0")/say.sh"

step "formatting and lints"
cargo fmt --all --check
rustfmt --check --edition 2024 fuzz/fuzz_targets/*.rs
cargo clippy --quiet --workspace --all-targets --locked -- -D warnings
shellcheck -x -P SCRIPTDIR xtask/*.sh
shellcheck -s bash tests/lab/assets/*.sh
if cargo deny --version >/dev/null 2>&1; then
    cargo deny --offline check --hide-inclusion-graph bans licenses sources
fi
