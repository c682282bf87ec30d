#!/bin/bash
# Feeds every parser of stored bytes with what libFuzzer makes up, beginning with the inputs in fuzz/corpus.
#   SECS      how long each target is run (default: 60)
#   TARGETS   which (default: all): header,page,…
#   KEEP      1 replaces fuzz/corpus by the smallest inputs that reach as much as all that were found
# Inputs that were found stay in BACKSTAY_CACHE/fuzz; one that fails its target is named, and ends the script.
set -euo pipefail
. "$(dirname "$0")/say.sh"

secs=${SECS:-60} targets=${TARGETS:-all} keep=${KEEP:-0} found=$cache/fuzz
# An input that takes this much memory or this long is a fault.
limits=(-rss_limit_mb=1500 -malloc_limit_mb=1024 -timeout=20)

cargo fuzz --version >/dev/null 2>&1 || {
    step "building cargo-fuzz into $cache/tools"
    cargo install --quiet --locked --root "$cache/tools" cargo-fuzz
}
export CARGO_TARGET_DIR=$CARGO_TARGET_DIR/fuzz
if [ "$targets" = all ]; then
    targets=$(cargo fuzz list | paste -sd,)
fi
step "building: $targets"
# What is fuzzed is safe Rust, which needs no sanitizer, so any toolchain will do.
cargo fuzz build --sanitizer none
for target in ${targets//,/ }; do
    step "$target for $secs s"
    mkdir -p "$found/$target" "$found/failed/$target"
    cargo fuzz run --sanitizer none "$target" "$found/$target" "fuzz/corpus/$target" -- \
        "${limits[@]}" -max_total_time="$secs" -artifact_prefix="$found/failed/$target/" -print_final_stats=1
    if [ "$keep" = 1 ]; then
        rm -rf "$found/$target.least" && mkdir "$found/$target.least"
        cargo fuzz run --sanitizer none "$target" "$found/$target.least" "$found/$target" "fuzz/corpus/$target" -- \
            "${limits[@]}" -merge=1 -max_len=4096
        rm -rf "fuzz/corpus/$target" && mv "$found/$target.least" "fuzz/corpus/$target"
    fi
done
