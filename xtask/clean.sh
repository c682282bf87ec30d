#!/bin/bash
# Removes what was built from this tree, and labs that nobody owns. Fetched things (images, tools) stay in the cache.
set -euo pipefail
. "$(dirname "$0")/say.sh"

if [ "$(id -u)" = 0 ] && [ -x "$CARGO_TARGET_DIR/debug/backstay-lab" ]; then
    "$CARGO_TARGET_DIR/debug/backstay-lab" clean
fi
rm -rf dist controller/ui/dist controller/ui/node_modules
cargo clean --quiet
