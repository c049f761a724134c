#!/usr/bin/env bash
# Extracts the shared library of ONNX Runtime from the Python wheel that its project publishes.
#
#   scripts/get-onnxruntime.sh [--slim | --openvino | --gpu] [DIR]
#
# DIR is target/onnxruntime/lib by default, with --openvino target/onnxruntime/lib-openvino, and with --gpu
# target/onnxruntime/lib-gpu. Prints the path for ORT_DYLIB_PATH. Wheels and libraries are checked against the
# SHA-256 below; existing files that match are kept. On x86-64, DIR/openvino gets a second build, with OpenVINO and
# everything it needs: the server uses it if networks run on the CPU (EXECUTION_PROVIDERS=auto or openvino). It is
# some versions behind ONNX Runtime, so both are kept. --slim leaves it out; --openvino gets only that one, into
# DIR. --gpu gets the build with the CUDA and TensorRT providers (x86-64 only), which need CUDA 13 and cuDNN 9, and
# TensorRT 10 for the latter, from the machine or image they run on.

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage="usage: $0 [--slim | --openvino | --gpu] [DIR]"
package=onnxruntime
openvino=1
dir=
for argument in "$@"; do
    case $argument in
        --gpu) package=onnxruntime-gpu openvino=0 ;;
        --openvino) package=onnxruntime-openvino openvino=0 ;;
        --slim) openvino=0 ;;
        -*) die "unknown option $argument; $usage" ;;
        *)
            [ -z "$dir" ] || die "more than one folder given; $usage"
            dir=$argument
            ;;
    esac
done
if [ -z "$dir" ]; then
    dir=$ROOT/target/onnxruntime/lib
    [ $package = onnxruntime ] || dir=$dir-${package#onnxruntime-}
fi
machine=$(uname -m)

# Licences that go along with the libraries.
licences=(LICENSE ThirdPartyNotices.txt)

# describe PACKAGE: sets the version, the wheel for this machine and every library taken from it.
describe() {
    VERSION=1.31.1
    [ "$1" != onnxruntime-openvino ] || VERSION=1.24.1
    case $1-$machine in
        onnxruntime-x86_64)
            wheel=1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536
            libraries="
fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3  libonnxruntime.so.$VERSION
086ec1d5388f64153d9c63470d126693db9a182c8ce236d3a1119068471b8a0d  libonnxruntime_providers_shared.so"
            ;;
        onnxruntime-aarch64)
            wheel=0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc
            libraries="
8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467  libonnxruntime.so.$VERSION
3b6be288fbfb7dff8770d08a23defdde18e8f7e0f5a2b344a0e5e238c999ea88  libonnxruntime_providers_shared.so"
            ;;
        onnxruntime-gpu-x86_64)
            wheel=05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7
            libraries="
5104254339ecadae808da771bd0b63b240f0dbd466514234905e54372435c303  libonnxruntime.so.$VERSION
8387867e857499e045caff5d13ac6a5de29571c801562fa2dde0e45f1f31de52  libonnxruntime_providers_cuda.so
086ec1d5388f64153d9c63470d126693db9a182c8ce236d3a1119068471b8a0d  libonnxruntime_providers_shared.so
1882ee49fdb0e6fc2d272b00cfaf9a3310bf8580a34385c0eec4d82014ea172e  libonnxruntime_providers_tensorrt.so"
            ;;
        onnxruntime-openvino-x86_64)
            wheel=d617fac2f59a6ab5ea59a788c3e1592240a129642519aaeaa774761dfe35150e
            libraries="
c7b0590c7825f7029ba17e20a5dea27f7f570d8241d60584caacd363648aa8e2  libonnxruntime.so.$VERSION
5e02c1ff90e7d71365264dbb6767c00f04a8b57a96cddbc0085c61fa1393250d  libonnxruntime_providers_shared.so
b19cae6eb713f35427a8427f141ffc8fc2471ae0532f57e52d84fa9a66799c30  libonnxruntime_providers_openvino.so
ac9634b715a242a61644c77bc38f17508fe73f517e418027e2410f4bee004943  libopenvino.so.2541
f426710881d8c1a01d5ed6d7eaa076d923b19983d3ab3a18bb19d25dba7d8923  libopenvino_onnx_frontend.so.2541
034df890550ae9199fe5f8608c0df8fd0fe355f303bad56bea10bae14c14c3cb  libopenvino_intel_cpu_plugin.so
6781dc6aa8b2ca237d0164258e70266a44667756c02a9a039782ec1d1a67b653  libtbb.so.12"
            ;;
        *) die "no $package $VERSION for $machine" ;;
    esac
}

# Whether folder $1 holds every library as published and the licences.
complete() {
    (cd "$1" && sha256sum --check --status --strict 2>/dev/null <<<"${libraries#$'\n'}" &&
        [ -s "${licences[0]}" ] && [ -s "${licences[1]}" ])
}

# get PACKAGE DIR: puts the libraries of a package into a folder.
get() {
    local package=$1 dir=$2 new
    describe "$package"
    mkdir -p "$dir"
    if ! complete "$dir"; then
        say "getting $package $VERSION for $machine"
        python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip
        # Next to the target, so that each library can be moved into place in one step.
        new=$(mktemp -d "$dir/.new.XXXXXX")
        # shellcheck disable=SC2064
        trap "rm -rf '$new'" EXIT
        echo "$package==$VERSION --hash=sha256:$wheel" >"$new/requirements.txt"
        # The Python version only selects among wheels with the same library.
        python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
            --only-binary=:all: --implementation cp --python-version 3.12 --abi cp312 \
            --platform "manylinux_2_28_$machine" --dest "$new" -r "$new/requirements.txt" >&2
        # shellcheck disable=SC2086
        python3 - "$new"/*.whl "$new" "${licences[@]}" $libraries <<'PYTHON'
import pathlib, sys, zipfile
wheel, folder, wanted = zipfile.ZipFile(sys.argv[1]), pathlib.Path(sys.argv[2]), set(sys.argv[3:])
for path in map(pathlib.PurePosixPath, wheel.namelist()):
    if path.name in wanted and str(path.parent) in ("onnxruntime", "onnxruntime/capi"):
        (folder / path.name).write_bytes(wheel.read(str(path)))
PYTHON
        complete "$new" || die "the libraries in the wheel are not those expected"
        chmod 0644 "$new"/lib* "${licences[@]/#/$new/}"
        mv -f "$new"/lib* "${licences[@]/#/$new/}" "$dir"
        rm -rf "$new"
    fi
    ln -sfn "libonnxruntime.so.$VERSION" "$dir/libonnxruntime.so.1"
    ln -sfn "libonnxruntime.so.$VERSION" "$dir/libonnxruntime.so"
}

get "$package" "$dir"
if [ "$openvino" = 1 ] && [ "$machine" = x86_64 ]; then
    get onnxruntime-openvino "$dir/openvino"
fi
dir=$(cd "$dir" && pwd)
echo "$dir/libonnxruntime.so"
