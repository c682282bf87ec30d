#!/bin/bash
# Builds the three packages into dist/. Does nothing when the inputs are those of the last build.
# DEB_CARGO_PROFILE=dev builds quickly and without optimisation.
set -euo pipefail
. "$(dirname "$0")/say.sh"

inputs=(Cargo.toml Cargo.lock LICENSE agentd config-examples controller crates ctl debian docs tests/Cargo.toml units
    xtask/Cargo.toml xtask/src tests/lab tests/suite)

listed() { git ls-files -z --cached --others --exclude-standard -- "${inputs[@]}" | sort -z -u; }
existing() { listed | while IFS= read -r -d '' path; do [ ! -e "$path" ] || printf '%s\0' "$path"; done; }
# The tests are part of the workspace, so cargo wants them; what they say does not change a package.
state=$(existing | grep -zv -e '^tests/' -e '^docs/' | xargs -0 sha256sum | sha256sum | cut -c1-32)
state="$state ${DEB_CARGO_PROFILE:-release}"
if [ "$(cat dist/.inputs 2>/dev/null)" = "$state" ] && [ "$(find dist -name '*.deb' | wc -l)" = 3 ]; then
    step "packages are up to date: dist/"
    exit 0
fi

step "building the packages"
mkdir -p "$cache/deb" dist
exec 9>"$cache/deb/lock"
flock 9
# Always the same path, and only what differs is written anew, so that cargo builds only what changed. Times are not
# kept: of two checkouts the older file would look built already.
rm -rf "$cache/deb/new"
mkdir -p "$cache/deb/new" "$cache/deb/source"
existing | tar --null -T - -cf - | tar -C "$cache/deb/new" -xf -
rsync --recursive --links --perms --checksum --delete "$cache/deb/new/" "$cache/deb/source/"
rm -rf "$cache/deb/new"
rm -rf dist/* dist/.inputs "$cache"/deb/backstay*
export CARGO_HOME=${CARGO_HOME:-$HOME/.cargo}
# Of its own: cargo takes crates of two checkouts for the same, and tells what is fresh by times only.
export CARGO_TARGET_DIR=$cache/deb/target
log=$cache/deb/log
if ! (cd "$cache/deb/source" && DEB_BUILD_OPTIONS="parallel=$(nproc)" dpkg-buildpackage -b -us -uc) >"$log" 2>&1; then
    tail -n 60 "$log"
    die "building the packages failed; the whole log is $log"
fi
mv "$cache"/deb/backstay*.deb dist/
echo "$state" >dist/.inputs
(cd dist && du -h --apparent-size -- *.deb)
