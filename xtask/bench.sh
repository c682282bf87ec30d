#!/bin/bash
# Measures backup and restore beside restic, on one host and one site.
set -euo pipefail
. "$(dirname "$0")/say.sh"

export BACKSTAY_DEBS=$tree/dist
cargo run --quiet -p tests --bin backstay-lab -- bench
