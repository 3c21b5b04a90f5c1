#!/usr/bin/env bash
# What a one-node Kubernetes and an image build need of Debian. Installs what is missing, which only root can.
set -euo pipefail

needed=(containerd runc containernetworking-plugins nftables iptables openssl iproute2 util-linux procps buildah debootstrap)
missing=()
for package in "${needed[@]}"; do
    dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
((${#missing[@]})) || exit 0
if ((EUID)) || ! command -v apt-get >/dev/null; then
    echo "test-cluster wants Debian's packages ${missing[*]}: apt-get install ${missing[*]}" >&2
    exit 1
fi
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
