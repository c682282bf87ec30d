#!/bin/bash
# The whole test: lints, unit tests, dashboard, packages, and the promises of the product on hosts that run the packages.
set -euo pipefail
. "$(dirname "$0")/say.sh"

xtask/lint.sh

step "unit tests"
cargo nextest run --locked --workspace -E 'not binary_id(tests::suite)'

if [ -f controller/ui/package.json ]; then
    step "dashboard"
    (cd controller/ui && npm ci --silent --no-fund --no-audit && npm run --silent check && npm run --silent test)
fi

xtask/deb.sh
step "lintian"
lintian --fail-on error --allow-root --suppress-tags bad-distribution-in-changes-file dist/*.deb

hosts='not test(/^(layering|tidy)::/)'
step "promises, on the installed packages"
export BACKSTAY_DEBS=$tree/dist
if ! reason=$(cargo run --quiet -p tests --bin backstay-lab -- doctor); then
    cargo nextest run --locked -p tests --test suite -E "not ($hosts)"
    echo "${red}not run, because they need hosts:"
    cargo nextest list --locked -p tests --test suite -E "$hosts"
    die "$reason"
fi
cargo nextest run --locked -p tests --test suite
