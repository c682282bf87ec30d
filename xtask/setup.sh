#!/bin/bash
# Installs what building and testing need, on Debian 12 and 13. Quick and silent when nothing is missing.
set -euo pipefail
. "$(dirname "$0")/say.sh"

packages=(
    acl build-essential ca-certificates chromium curl debhelper dpkg-dev e2fsprogs git iproute2 lintian mariadb-client mariadb-server-core mmdebstrap
    nftables nodejs npm pkg-config procps restic rsync shellcheck socat systemd-container util-linux xz-utils
)
rust_min=1.90 node_min=20 nextest=0.9.128 garage=2.5.0

# Tells whether version $1 is at least $2.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n1)" = "$2" ]; }

install_packages() {
    local missing=() package
    for package in "${packages[@]}"; do
        # A nodejs from elsewhere brings npm along and refuses Debian's.
        if [ "$package" = npm ] && command -v npm >/dev/null; then continue; fi
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        [ "$(id -u)" = 0 ] || die "not installed: ${missing[*]}; run as root: apt-get install ${missing[*]}"
        step "installing ${missing[*]}"
        apt-get -qq update
        DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
    elif [ "$(id -u)" = 0 ] && [ -z "$(apt-get indextargets 'Created-By: Packages')" ]; then
        apt-get -qq update
    fi
}

check_rust() {
    local found
    if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
        die "cargo is not on PATH: add $HOME/.cargo/bin"
    fi
    command -v cargo >/dev/null || die "no cargo: install Rust $rust_min or newer (rustup, or Debian's package rustup)"
    found=$(rustc --version | cut -d' ' -f2)
    at_least "$found" "$rust_min" || die "Rust $found is too old: $rust_min or newer is needed (rustup update)"
}

# Debian 12 has a Node that the dashboard's tools no longer run on; the npm registry carries newer ones.
install_node() {
    local found
    found=$(node --version 2>/dev/null | tr -d v || echo 0)
    if ! at_least "$found" "$node_min"; then
        step "installing Node 22 into $cache/tools"
        npm install --silent --no-fund --no-audit --prefix "$cache/tools/node" node@22
        mkdir -p "$cache/tools/bin"
        ln -sf ../node/node_modules/.bin/node "$cache/tools/bin/node"
    fi
}

install_cargo_tools() {
    if ! cargo nextest --version >/dev/null 2>&1; then
        step "building cargo-nextest $nextest into $cache/tools"
        cargo install --quiet --locked --root "$cache/tools" --version "$nextest" cargo-nextest
    fi
    if [ ! -x "$cache/garage/bin/garage" ]; then
        step "building garage $garage into $cache/garage"
        cargo install --quiet --locked --root "$cache/garage" --version "$garage" \
            --no-default-features --features bundled-libs,sqlite garage
    fi
}

mkdir -p "$cache" || die "cannot write $cache; set BACKSTAY_CACHE to a directory that you own"
install_packages
check_rust
install_node
install_cargo_tools
if [ "$(id -u)" = 0 ]; then
    cargo run --quiet -p tests --bin backstay-lab -- images
fi
