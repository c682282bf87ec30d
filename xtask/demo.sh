#!/bin/bash
# Shows Backstay from end to end. KEEP=0 ends after the proof; otherwise everything runs until Ctrl-C.
set -euo pipefail
. "$(dirname "$0")/say.sh"

export BACKSTAY_DEBS=$tree/dist
cargo build --quiet -p tests --bin backstay-lab
if [ "${KEEP:-1}" = 0 ]; then
    exec "$CARGO_TARGET_DIR/debug/backstay-lab" demo
fi
exec "$CARGO_TARGET_DIR/debug/backstay-lab" demo --keep
