#!/usr/bin/env bash
# Builds the base images of the Dockerfile with debootstrap, for machines that reach no container registry. Needs a
# Docker engine, root, a Debian mirror, and for the build base this machine's Rust.
#
#   docker/make-bases.sh [build|runtime]...        both unless named
#
#   ahi-inference-base:build      stands for rust:1.95-bookworm: compiler, linker, Rust, Python
#   ahi-inference-base:runtime    stands for debian:bookworm-slim
#
# Existing images are kept; `docker rmi` one to have it built again. DEBIAN_MIRROR is the URL of a mirror other
# than Debian's own. Certificate authorities that this machine's administrator added (in
# /usr/local/share/ca-certificates) are trusted in the build base, but not in the runtime base.

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"

SUITE=bookworm
NAME=ahi-inference-base

# bootstrap FOLDER PACKAGES: a Debian with these packages in addition to the essential ones.
bootstrap() {
    as_root debootstrap --variant=minbase --include="$2" "$SUITE" "$1" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >&2
    # Only the package manager and readers of manuals would miss these. Licences stay.
    as_root find "$1/var/cache/apt" "$1/var/lib/apt/lists" "$1/var/cache/debconf" "$1/var/log" -type f -delete
    as_root find "$1/usr/share/doc" -type f ! -name copyright -delete
    as_root rm -rf "$1/usr/share/man" "$1/usr/share/info" "$1/usr/share/locale" "$1/usr/share/lintian"
}

# import FOLDER TAG CHANGES...: turns the folder into an image.
import() {
    local root=$1 tag=$2 change changes=()
    shift 2
    for change in "$@"; do changes+=(--change "$change"); done
    as_root tar --create --numeric-owner --xattrs --directory "$root" . | docker import "${changes[@]}" - "$NAME:$tag" >&2
}

make_runtime() {
    bootstrap "$work/runtime" libgcc-s1,libstdc++6,tzdata
    import "$work/runtime" runtime 'CMD ["bash"]'
}

make_build() {
    local root=$work/build sysroot
    sysroot=$(rustc --print sysroot) || die "the build base takes Rust from this machine; install it first"
    bootstrap "$root" ca-certificates,gcc,libc6-dev,python3,python3-pip
    # The toolchain as rustup unpacks it works from any folder.
    as_root cp -a "$sysroot/bin" "$sysroot/lib" "$root/usr/local/"
    if compgen -G '/usr/local/share/ca-certificates/*.crt' >/dev/null; then
        as_root cp /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/"
        as_root chroot "$root" update-ca-certificates >&2
    fi
    import "$root" build 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        'ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt' 'CMD ["bash"]'
}

docker version >/dev/null || die "no Docker engine answers"
apt_install debootstrap
work=$(mktemp -d)
trap 'as_root rm -rf "$work"' EXIT
[ $# -gt 0 ] || set -- build runtime
for base in "$@"; do
    case $base in build | runtime) ;; *) die "no base is called $base; there are build and runtime" ;; esac
    if ! docker image inspect "$NAME:$base" >/dev/null 2>&1; then
        say "making $NAME:$base"
        "make_$base"
    fi
    docker image inspect --format "$NAME:$base {{.Size}} bytes" "$NAME:$base"
done
