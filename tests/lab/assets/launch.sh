# Runs one host until it powers off or is killed. Started in a mount namespace of its own, so that no mount is left.
# usage: launch DIRECTORY IMAGE GROUP... -- NSPAWN-ARGUMENT...
set -eu
directory=$1 image=$2
shift 2
while [ "$1" != -- ]; do
    echo $$ >"$1/cgroup.procs"
    shift
done
shift

# A private tmpfs: nspawn refuses to clean up after itself when this directory is on a disk.
mkdir -p /run/systemd/nspawn
mount -t tmpfs tmpfs /run/systemd/nspawn
mount -t overlay backstay-lab \
    -o "lowerdir=$image,upperdir=$directory/upper,workdir=$directory/work" "$directory/merged"
if [ -e "$directory/disk.img" ]; then
    mount -o loop "$directory/disk.img" "$directory/disk"
fi

# Pure cgroup v2 inside, also where this machine has the old hierarchies.
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
while :; do
    code=0
    systemd-nspawn -q -D "$directory/merged" -b "$@" || code=$?
    # 133 is how nspawn says that the host wants to be booted again.
    [ $code = 133 ] || exit $code
done
