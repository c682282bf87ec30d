# Sourced by the scripts beside it: how they talk, and where the tree is.
# shellcheck shell=bash
tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${BACKSTAY_CACHE:-/var/cache/backstay}
export BACKSTAY_CACHE=$cache CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target} PATH=$cache/tools/bin:$PATH
red='' bold='' plain=''
if [ -t 1 ] || [ "${CI:-}" = true ]; then
    red=$'\e[1;31m' bold=$'\e[1m' plain=$'\e[0m'
fi
cd "$tree" || exit 1

# Says what begins now, with the seconds since the script began.
step() { echo "${bold}== [$SECONDS s] $*${plain}"; }

# Says what is wrong and ends the script.
die() {
    echo "${red}Error: $*${plain}" >&2
    exit 1
}
