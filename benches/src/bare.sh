#!/bin/busybox sh
# An init that mounts what there is and then is a shell on the serial port of the host's end.
export PATH=/usr/bin:/bin
/bin/busybox --install -s /bin
mkdir -p /dev /proc /sys /usr /root
ln -s usr/lib /lib
ln -s usr/lib64 /lib64
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys
for module in /modules/*; do insmod "$module"; done
for disk in /dev/vd*; do mount -t erofs "$disk" /usr || mount -t ext4 -o noatime "$disk" /root; done
until [ -e /dev/vport0p1 ]; do sleep 0.1; done
exec <>/dev/vport0p1 >&0
# Until the host is there, reading is at its end.
while :; do
  if read -r line; then eval "$line"; else sleep 0.1; fi
done
