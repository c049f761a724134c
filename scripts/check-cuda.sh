#!/usr/bin/env bash
# Checks on a machine without a GPU that ONNX Runtime's CUDA provider loads together with everything it needs
# except the driver, and that a server asked for CUDA then lacks only the device.
#
#   scripts/check-cuda.sh
#
# CUDA's and cuDNN's libraries come from NVIDIA's wheels (about 1.3 GB, into target/cuda). The driver's library,
# which is in no wheel, is replaced by a stub that has the functions the provider links to, and no device.

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

[ "$(uname -m)" = x86_64 ] || die "the build with CUDA is for x86-64"
binary=${AHI_INFERENCE_BIN:-$ROOT/target/release/ahi-inference}
[ -x "$binary" ] || die "there is no $binary: cargo build --release"
ORT_DYLIB_PATH=$(scripts/get-onnxruntime.sh --gpu)
export ORT_DYLIB_PATH
provider=$(dirname "$ORT_DYLIB_PATH")/libonnxruntime_providers_cuda.so

cuda=$ROOT/target/cuda
if [ ! -e "$cuda/.complete" ]; then
    say "getting CUDA 13 and cuDNN 9"
    rm -rf "$cuda"
    python3 -m venv "$cuda/venv"
    "$cuda/venv/bin/python" -m pip install --quiet --disable-pip-version-check --target "$cuda/wheels" --no-deps \
        'nvidia-cuda-runtime>=13,<14' 'nvidia-cublas>=13,<14' 'nvidia-cufft>=12,<13' 'nvidia-curand>=10.4,<11' \
        'nvidia-cuda-nvrtc>=13,<14' 'nvidia-nvjitlink>=13,<14' 'nvidia-cudnn-cu13>=9,<10'
    touch "$cuda/.complete"
fi
folders=$(find "$cuda/wheels/nvidia" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)

say "making a driver's library without a device"
stand_in=$cuda/driver
mkdir -p "$stand_in"
# What the provider links to, and what CUDA's runtime calls first; 100 is CUDA_ERROR_NO_DEVICE.
{
    nm -D --undefined-only "$provider" | awk '$2 ~ /^cu[A-Z]/ {print $2}'
    echo cuInit
} | sort -u | sed 's/.*/int &(void) { return 100; }/' >"$stand_in/driver.c"
cc -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$stand_in/libcuda.so.1" "$stand_in/driver.c"
export LD_LIBRARY_PATH=$folders:$stand_in

say "loading the provider with every symbol bound"
LD_BIND_NOW=1 python3 - "$(dirname "$ORT_DYLIB_PATH")" <<'PYTHON'
import ctypes, os, sys
for name in ("libonnxruntime_providers_shared.so", "libcudnn.so.9", "libonnxruntime.so"):
    path = os.path.join(sys.argv[1], name)
    ctypes.CDLL(path if os.path.exists(path) else name, os.RTLD_GLOBAL | os.RTLD_NOW)
# The provider itself is resolved without running its initialisers, which ask for its host.
libraries = os.popen(f"ldd -r {sys.argv[1]}/libonnxruntime_providers_cuda.so 2>&1").read()
missing = [line for line in libraries.splitlines() if "not found" in line or "undefined symbol" in line]
# ONNX Runtime provides the symbols of the host.
missing = [line for line in missing if "Provider_GetHost" not in line]
if missing:
    sys.exit("\n".join(missing))
print(f"{libraries.count('=>')} libraries found, no symbol missing")
PYTHON

say "asking a server for CUDA"
log=$(EXECUTION_PROVIDERS=cuda timeout 30 "$binary" run /nowhere --model model/ct_phantom --out /nowhere 2>&1) || true
echo "$log" | tail -3
case $log in
    *libraries*missing*) die "libraries are missing" ;;
    *"cannot be used: there is no NVIDIA device"*) say "the device alone is missing" ;;
    *) die "the answer was another one" ;;
esac
