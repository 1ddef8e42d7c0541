#!/usr/bin/env bash
# Makes a node image for kind on a machine that can pull none: Debian (debian.sh), kind's own files and
# Kubernetes' one binary, which is also what the images of the control plane consist of. It mounts things,
# so it runs inside the enclave, where dockerd is and nothing else is to be reached.
set -euo pipefail

image=$1 cache=$2 kind=$3 bin=$4
here=$(dirname "$(readlink -f "$0")")

base=$cache/debian.tar

echo "node image: laying Kubernetes over Debian"
# In memory: everything is read and written several times.
root=/run/node-image
mkdir -p "$root"
mount -t tmpfs tmpfs "$root"
tar -C "$root" -xf "$base"
cp -r "$kind"/images/base/files/. "$root"
cp -r "$here"/files/. "$root"
chmod -R u+w "$root"/{etc,kind,usr/local}
chmod 0755 "$root"/usr/local/bin/* "$root"/usr/local/sbin/* "$root"/kind/bin/*
chmod 0644 "$root"/etc/systemd/system/*.service

install -m 0755 "$bin/kubernetes" "$root/usr/bin/kubernetes"
for program in kubeadm kubelet kubectl; do ln -s kubernetes "$root/usr/bin/$program"; done
for program in containerd containerd-shim-runc-v2 ctr; do ln -s "/usr/bin/$program" "$root/usr/local/bin/$program"; done
mkdir -p "$root"/opt/cni/bin "$root"/etc/kubernetes/manifests "$root"/etc/cni/net.d
cp "$root"/usr/lib/cni/{host-local,loopback,portmap,ptp} "$root/opt/cni/bin"
sed -n "s,.*/kube-apiserver:,,p" "$cache/images.txt" >"$root/kind/version"

# What kind's own Dockerfile does to a Debian, too.
rm -f "$root"/lib/systemd/system/{multi-user.target.wants,local-fs.target.wants}/* "$root"/etc/systemd/system/*.wants/* \
  "$root"/lib/systemd/system/sockets.target.wants/*{udev,initctl}* "$root"/lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service
echo ReadKMsg=no >>"$root/etc/systemd/journald.conf"
chroot "$root" systemctl enable -q kubelet containerd undo-mount-hacks
chroot "$root" systemctl mask -q systemd-binfmt
sed -i -e 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' \
  -e "s#sandbox_image = .*#sandbox_image = \"$(grep pause "$cache/images.txt")\"#" "$root/etc/containerd/config.toml"
chroot "$root" ctr oci spec |
  jq 'del(.process.rlimits) | .hooks.createContainer += [{path: "/kind/bin/mount-product-files.sh"}]' >"$root/etc/containerd/cri-base.json"

# One image that is every program of the control plane, under the names that kubeadm asks for. kube-proxy
# needs nft.
echo "node image: putting the control plane's images in"
control=$root/run/control-plane
mkdir -p "$control"/{usr/local/bin,tmp,etc}
ln "$root/usr/bin/kubernetes" "$control/usr/local/bin/kubernetes"
for program in etcd kube-apiserver kube-controller-manager kube-proxy kube-scheduler; do
  ln -s kubernetes "$control/usr/local/bin/$program"
done
for file in /usr/sbin/nft $(chroot "$root" ldd /usr/sbin/nft | grep -o '/[^ ]*'); do
  install -D "$root$file" "$control$file"
done
tar -C "$control" -c . | docker import -c 'ENV PATH=/usr/local/bin:/usr/sbin' - herald-e2e/control-plane >/dev/null
tar -C "$bin" -c pause | docker import -c 'ENTRYPOINT ["/pause"]' - herald-e2e/pause >/dev/null
rm -r "$control"
names=()
while read -r name; do
  case $name in
    */coredns/*) continue ;;
    */pause:*) docker tag herald-e2e/pause "$name" ;;
    *) docker tag herald-e2e/control-plane "$name" ;;
  esac
  names+=("$name")
done <"$cache/images.txt"
mkdir "$root/run/images"
docker save "${names[@]}" -o "$root/run/images/all.tar"
docker rmi "${names[@]}" herald-e2e/control-plane herald-e2e/pause >/dev/null

mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
chroot "$root" containerd --address /run/image.sock >"$cache/containerd.log" 2>&1 &
containerd=$!
for ((i = 0; i < 150; i++)); do
  chroot "$root" ctr --address /run/image.sock version >/dev/null 2>&1 && break
  sleep 0.1
done
chroot "$root" ctr --address /run/image.sock -n k8s.io images import --no-unpack /run/images/all.tar >/dev/null
kill "$containerd"
wait "$containerd" || true
umount -R "$root/dev" "$root/proc"
rm -rf "${root:?}"/run/*

tar --numeric-owner -C "$root" -c . | docker import \
  -c 'ENV container=docker' -c 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' - "$image" >/dev/null
umount "$root"
