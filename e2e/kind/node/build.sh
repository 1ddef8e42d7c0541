#!/usr/bin/env bash
# Makes a node image for kind on a machine that can pull none: Debian (debian.sh), kind's own files, and
# Kubernetes' one binary, which is also what the images of the control plane consist of.
#
# It mounts things and calls docker, so it runs inside the enclave. The folder cache has debian.tar and
# kind's files as base/; the folder bin has kubernetes, coredns and pause.
set -euo pipefail

image=$1 cache=$2 bin=$3
here=$(dirname "$(readlink -f "$0")")
version=$("$bin/kubernetes" kubeadm version -o short)
mapfile -t names < <("$bin/kubernetes" kubeadm config images list --kubernetes-version "$version")

# In memory: everything is read and written several times.
root=/run/node-image
mkdir -p "$root"
mount -t tmpfs tmpfs "$root"
trap 'umount -R "$root"' EXIT
tar -C "$root" -xf "$cache/debian.tar"
cp -r "$cache/base/." "$here/files/." "$root"
chmod 0755 "$root"/usr/local/{bin,sbin}/* "$root"/kind/bin/*

install -m 0755 "$bin/kubernetes" "$root/usr/bin/kubernetes"
for program in kubeadm kubelet kubectl; do ln -s kubernetes "$root/usr/bin/$program"; done
# Where kind's units and scripts look for them.
for program in containerd containerd-shim-runc-v2 ctr; do ln -s "/usr/bin/$program" "$root/usr/local/bin/$program"; done
mkdir -p "$root"/opt/cni/bin "$root"/etc/kubernetes/manifests "$root"/etc/cni/net.d
cp "$root"/usr/lib/cni/{host-local,loopback,portmap,ptp} "$root/opt/cni/bin"
echo "$version" >"$root/kind/version"

# What kind's own Dockerfile does to a Debian.
rm -f "$root"/etc/systemd/system/*.wants/* \
  "$root"/lib/systemd/system/{multi-user,local-fs,basic}.target.wants/* \
  "$root"/lib/systemd/system/sockets.target.wants/*{udev,initctl}* \
  "$root"/lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service
echo ReadKMsg=no >>"$root/etc/systemd/journald.conf"
chroot "$root" systemctl enable -q kubelet containerd undo-mount-hacks
chroot "$root" systemctl mask -q systemd-binfmt
chroot "$root" ctr oci spec |
  jq 'del(.process.rlimits) | .hooks.createContainer += [{path: "/kind/bin/mount-product-files.sh"}]' >"$root/etc/containerd/cri-base.json"

# And what depends on the version, or on what this machine forbids (see the runc in files/).
pause=$(printf '%s\n' "${names[@]}" | grep /pause:)
sed -i -e 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' \
  -e "s#sandbox_image = .*#sandbox_image = \"$pause\"#" "$root/etc/containerd/config.toml"

# One image that is every program of the control plane, under the names that kubeadm asks for.
control=$root/run/control-plane
mkdir -p "$control"/{usr/local/bin,tmp,etc}
ln "$root/usr/bin/kubernetes" "$control/usr/local/bin/kubernetes"
for program in etcd kube-apiserver kube-controller-manager kube-proxy kube-scheduler; do
  ln -s kubernetes "$control/usr/local/bin/$program"
done
# kube-proxy's tool, with what it is linked to.
for file in /usr/sbin/nft $(chroot "$root" ldd /usr/sbin/nft | grep -o '/[^ ]*'); do
  install -D "$root$file" "$control$file"
done
import() { # name of the image, its folder, what is in it, configuration
  tar -C "$2" -c "$3" | docker import "${@:4}" - "$1" >/dev/null
}
import herald-e2e/control-plane "$control" . -c 'ENV PATH=/usr/local/bin:/usr/sbin'
import herald-e2e/coredns "$bin" coredns -c 'ENTRYPOINT ["/coredns"]'
import herald-e2e/pause "$bin" pause -c 'ENTRYPOINT ["/pause"]'
rm -r "$control"
for name in "${names[@]}"; do
  case $name in
    */coredns:*) docker tag herald-e2e/coredns "$name" ;;
    */pause:*) docker tag herald-e2e/pause "$name" ;;
    *) docker tag herald-e2e/control-plane "$name" ;;
  esac
done
docker save "${names[@]}" -o "$root/run/images.tar"
docker image rm "${names[@]}" herald-e2e/{control-plane,coredns,pause} >/dev/null

# The nodes' own containerd takes the images in.
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
ctr() { chroot "$root" ctr --address /run/image.sock "$@"; }
chroot "$root" containerd --address /run/image.sock >"$cache/containerd.log" 2>&1 &
containerd=$!
for ((i = 0; i < 150; i++)); do
  ! ctr version >/dev/null 2>&1 || break
  sleep 0.1
done
ctr --namespace k8s.io images import --no-unpack /run/images.tar >/dev/null
kill "$containerd"
wait "$containerd" || true
umount -R "$root/dev" "$root/proc"
rm -rf "${root:?}"/run/*

import "$image" "$root" . -c 'ENV container=docker' -c 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]'
