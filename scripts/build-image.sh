#!/usr/bin/env bash
# Builds the image of one flavour.
#
#   scripts/build-image.sh [cpu|cpu-slim|cuda] [TAG]
#
# The tag is ahi-inference:FLAVOUR by default. Prints the image's size.
#
#   LOCAL_BASES=1   uses the bases that docker/make-bases.sh builds, if no container registry can be
#                   reached; `cuda` is then an image without CUDA's own libraries, which only shows
#                   that it can be built
#   PROGRAM=FILE    uses this program instead of compiling one: quick, for tests of the image; it must be
#                   built on a system whose C library is no newer than that of the image's base

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

flavour=${1:-cpu}
tag=${2:-ahi-inference:$flavour}
case $flavour in cpu | cpu-slim | cuda) ;; *) die "no flavour is called $flavour; there are cpu, cpu-slim and cuda" ;; esac

arguments=(--build-arg "FLAVOUR=$flavour" --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)")
if [ "${LOCAL_BASES:-0}" = 1 ]; then
    docker/make-bases.sh >&2
    arguments+=(--build-arg BUILD_BASE=ahi-inference-base:build)
    arguments+=(--build-arg CPU_BASE=ahi-inference-base:runtime --build-arg CUDA_BASE=ahi-inference-base:runtime)
elif ! docker buildx version >/dev/null 2>&1 && [ "$flavour" != cuda ]; then
    # Without BuildKit, the stages of the other flavour are built too; they need no CUDA base.
    arguments+=(--build-arg CUDA_BASE=debian:bookworm-slim)
fi
if [ -n "${PROGRAM:-}" ]; then
    docker build "${arguments[@]}" --target runtime --tag "$tag-runtime" . >&2
    context=$(mktemp -d)
    trap 'rm -rf "$context"' EXIT
    strip --strip-all -o "$context/ahi-inference" "$PROGRAM"
    chmod 0755 "$context/ahi-inference"
    # Like the last stage of the Dockerfile.
    printf 'FROM %s\nCOPY ahi-inference /usr/local/bin/\n' "$tag-runtime" >"$context/Dockerfile"
    docker build --tag "$tag" "$context" >&2
else
    docker build "${arguments[@]}" --tag "$tag" . >&2
fi
docker image inspect --format "$tag {{.Id}} {{.Size}} bytes" "$tag"
