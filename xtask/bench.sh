#!/bin/bash
# Measures Backstay beside restic, rustic and borg, on data sets from Debian's packages and fixed seeds.
#   SETS   linux,hosting,media,dumps (default), or demo: one site on a host of the lab, through the agent
#          or scale: Backstay alone on made-up trees of COUNTS files (10000 100000 1000000 10000000)
#   TOOLS  backstay,restic,rustic,borg (default: all that can be had)
#   CACHE  cold: empty the page cache before each row
#   RUNS   how often each row is measured (default: 5)
set -euo pipefail
. "$(dirname "$0")/say.sh"

sets=${SETS:-all} tools=${TOOLS:-all} runs=${RUNS:-5}
rustic=0.11.4
bench=$cache/bench

if [ "$sets" = demo ]; then
    "$tree/xtask/setup.sh"
    "$tree/xtask/deb.sh"
    BACKSTAY_DEBS=$tree/dist exec cargo run --quiet -p tests --bin backstay-lab -- bench
fi

if [ "$sets" = scale ]; then
    step "building the scale measurement"
    cargo build --quiet --locked --release -p ops --example scale
    mkdir -p "$bench/work"
    # shellcheck disable=SC2086 # a list of numbers
    exec "$CARGO_TARGET_DIR/release/examples/scale" "$bench/work/scale" ${COUNTS:-10000 100000 1000000 10000000}
fi

# True when the list $1 names $2 or is "all".
names() { [ "$1" = all ] || [[ ,$1, == *,$2,* ]]; }

# Downloads packages of Debian 13 into $bench/packages, whatever release this is: the same data and restic everywhere.
fetch() {
    local apt=$bench/apt missing=() package archive
    for package in "$@"; do
        compgen -G "$bench/packages/${package}_*.deb" >/dev/null || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    step "fetching ${missing[*]}"
    mkdir -p "$bench/packages" "$apt/state/lists/partial" "$apt/cache/archives/partial"
    # From where this machine itself gets its packages.
    # shellcheck disable=SC2016 # for apt to expand
    archive=$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Created-By: Packages' |
        sed -n 's/^Debian|Debian|//p' | head -n1)
    [ -n "$archive" ] || die "apt knows no Debian archive: run apt-get update"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive trixie main" > "$apt/sources.list"
    local options=(-qq -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State=$apt/state"
        -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update
    (cd "$bench/packages" && apt-get "${options[@]}" download "${missing[@]}")
    rm -rf "$apt"
}

if names "$sets" linux && [ ! -e "$bench/sets/linux" ]; then fetch linux-source-6.12; fi
if names "$sets" hosting && [ ! -e "$bench/sets/hosting" ]; then fetch wordpress; fi

mkdir -p "$bench/peers"
if names "$tools" restic && [ ! -e "$bench/peers/restic" ]; then
    fetch restic
    dpkg-deb -x "$bench"/packages/restic_*.deb "$bench/peers/restic"
fi
if names "$tools" borg && [ ! -e "$bench/peers/borg" ]; then
    step "fetching borg of this release"
    mkdir -p "$bench/peers/borg.part/deb"
    (cd "$bench/peers/borg.part/deb" && apt-get -qq -o APT::Sandbox::User=root download \
        borgbackup python3-msgpack python3-packaging python3-pkg-resources)
    for package in "$bench"/peers/borg.part/deb/*.deb; do dpkg-deb -x "$package" "$bench/peers/borg.part"; done
    rm -r "$bench/peers/borg.part/deb"
    mv "$bench/peers/borg.part" "$bench/peers/borg"
fi
if names "$tools" rustic && [ ! -e "$bench/peers/rustic" ]; then
    step "building rustic $rustic into $bench/peers"
    cargo install --quiet --locked --root "$bench/peers/rustic" --version "$rustic" --no-default-features rustic-rs ||
        echo "rustic cannot be built here"
fi

step "building backstayctl and the bench"
cargo build --quiet --locked --release -p ctl
cargo build --quiet --locked --release -p ops --example ceiling
cargo build --quiet --locked -p tests --bin backstay-bench
export BACKSTAYCTL=${BACKSTAYCTL:-$CARGO_TARGET_DIR/release/backstayctl}
export BACKSTAY_CEILING=$CARGO_TARGET_DIR/release/examples/ceiling
step "measuring: $sets; $tools; $runs rounds"
"$CARGO_TARGET_DIR/debug/backstay-bench" "$sets" "$tools" "$runs" "$tree/target/bench/results.json"
