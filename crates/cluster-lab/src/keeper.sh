#!/bin/sh
# The place that a lab runs in, and its end. `keeper.sh NUMBER STATE HOLD...`: says `taken` when the number is another's,
# else the process 1 of the place, and stays until that ends. It runs HOLD: `cat` ends with the lab's owner, however that
# ends, since the owner has the other end of its input. With process 1 ends all that runs in the place, and with the
# namespaces go the mounts and the network; what is left are cgroups and files.
set -eu
number=$1 state=$2
shift 2
group=garth-lab-$number

# Tries again for as long as what was killed takes to be gone.
clean() {
    tries=100
    for tree in /sys/fs/cgroup/*/"$group" /sys/fs/cgroup/"$group"; do
        while [ -d "$tree" ] && ! find "$tree" -depth -type d -exec rmdir {} + 2>/dev/null && [ $tries != 0 ]; do
            tries=$((tries - 1))
            sleep 0.1
        done
    done
    rm -rf "$state"
}

# For the kubelet, which makes its own below them. It may have all that the machine has.
make_cgroups() {
    if [ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ]; then
        mkdir "/sys/fs/cgroup/$group"
        for at in /sys/fs/cgroup "/sys/fs/cgroup/$group"; do
            for controller in cpu cpuset io memory pids; do
                echo "+$controller" >"$at/cgroup.subtree_control" || true
            done
        done
        return
    fi
    for tree in /sys/fs/cgroup/*/; do
        [ "$(stat -f -c %T "$tree")" = cgroupfs ] || continue
        mkdir "$tree$group"
        for file in cpuset.cpus cpuset.mems; do
            [ ! -e "$tree$file" ] || cat "$tree$file" >"$tree$group/$file"
        done
    done
}

inside='
set -eu
state=$1
shift
# The number that it has outside: this /proc is still that of the machine.
read -r pid rest </proc/self/stat
mount --make-rshared /
mount -t proc proc /proc
# Where Kubernetes, containerd and CNI have fixed paths.
for folder in /run /var/lib /var/log; do mount -t tmpfs -o mode=755 tmpfs "$folder"; done
mkdir -p /run/lock /run/netns /run/proc
# A Pod with users of its own may mount a /proc only if it could see a whole one: that at /proc is partly covered below.
mount -t proc proc /run/proc
# The kubelet would set these for the whole machine. It finds what it wants here.
mkdir -p "$state/sysctls"
while read -r name value; do
    file=$state/sysctls/$(echo "$name" | tr / .)
    echo "$value" >"$file"
    [ ! -e "/proc/sys/$name" ] || mount --bind "$file" "/proc/sys/$name"
done <<SYSCTLS
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
SYSCTLS
echo 1 >/proc/sys/net/ipv4/ip_forward
ip link set lo up
echo "$pid"
# As process 1 it has no use for the ends of others children: the kernel shall forget them.
exec env --ignore-signal=CHLD "$@" >/dev/null 2>&1
'

exec 2>&1
# One number is one place on the machine, wherever its files are.
exec 9>"/run/lock/$group"
flock -n 9 && [ ! -e "/sys/class/net/garth-lab$number" ] || { echo taken; exit 0; }
mkdir -p "$(dirname "$state")"
clean
mkdir -m 755 "$state"
make_cgroups
unshare --mount --pid --net --fork --kill-child sh -c "$inside" inside "$state" "$@" || true
exec >/dev/null 2>&1
# The kernel takes the network apart some time after its last process.
ip link delete "garth-lab$number" || true
clean
