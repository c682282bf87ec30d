# Removes what a lab made: its processes, control groups, network namespaces and directory.
# usage: reap GROUP NAMESPACE-PREFIX DIRECTORY
# Safe to run twice and at the same time as itself.
set -u
group=$1 namespaces=$2 directory=$3

processes() {
    # A 0 stands for a process outside our view; killing "0" would hit our own process group.
    find "$@" -name cgroup.procs -exec cat {} + 2>/dev/null | grep -vx 0 | sort -u
}

groups=()
for root in /sys/fs/cgroup/unified /sys/fs/cgroup/systemd /sys/fs/cgroup; do
    if [ -d "$root/$group" ]; then groups+=("$root/$group"); fi
done

if [ ${#groups[@]} -gt 0 ]; then
    for _ in $(seq 200); do
        pids=$(processes "${groups[@]}")
        [ -n "$pids" ] || break
        # shellcheck disable=SC2086 # one word for each process
        kill -KILL $pids 2>/dev/null
        sleep 0.05
    done
    for path in "${groups[@]}"; do
        for _ in $(seq 40); do
            find "$path" -depth -type d -exec rmdir {} + 2>/dev/null
            [ -d "$path" ] || break
            sleep 0.05
        done
    done
fi

for path in /run/netns/"$namespaces"*; do
    if [ -e "$path" ]; then ip netns del "${path##*/}"; fi
done

for _ in $(seq 20); do
    rm -rf --one-file-system "$directory" 2>/dev/null && break
    sleep 0.1
done
left=0
for path in "$directory" "${groups[@]}"; do
    if [ -e "$path" ]; then
        echo "still there: $path" >&2
        left=1
    fi
done
exit $left
