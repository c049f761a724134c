# The container for SageMaker's contract, and for any other host.
#
#   docker build -t ahi-inference:cpu .
#   docker build -t ahi-inference:cpu-slim --build-arg FLAVOUR=cpu-slim .
#   docker build -t ahi-inference:cuda --build-arg FLAVOUR=cuda .
#
# `cpu-slim` is `cpu` without OpenVINO; `cuda` is for x86-64 with an NVIDIA driver for CUDA 13. Works with and
# without BuildKit; without it, every stage before the requested one is built, whether it is needed or not.

ARG FLAVOUR=cpu
# The program runs on any system whose C library is at least as new as the build's, Debian 12's glibc 2.36.
ARG BUILD_BASE=rust:1.95-bookworm
ARG CPU_BASE=debian:bookworm-slim
# CUDA 13 and cuDNN 9, which scripts/get-onnxruntime.sh --gpu needs.
ARG CUDA_BASE=nvidia/cuda:13.0.2-cudnn-runtime-ubuntu24.04

# ONNX Runtime and the page's viewer, checked against their hashes, and Mozilla's certificate authorities.
FROM ${BUILD_BASE} AS libraries
ARG FLAVOUR
WORKDIR /libraries
COPY scripts/lib.sh scripts/get-onnxruntime.sh scripts/get-viewer.sh scripts/
RUN case "${FLAVOUR}" in \
        # ONNX Runtime with OpenVINO has its own kernels, too, some versions behind; both would add 30 MB.
        cpu) case "$(uname -m)" in \
                x86_64) scripts/get-onnxruntime.sh --openvino /out/opt/onnxruntime/lib ;; \
                *) scripts/get-onnxruntime.sh /out/opt/onnxruntime/lib ;; \
            esac ;; \
        cpu-slim) scripts/get-onnxruntime.sh --slim /out/opt/onnxruntime/lib ;; \
        cuda) scripts/get-onnxruntime.sh --gpu /out/opt/onnxruntime/lib ;; \
        *) echo "FLAVOUR is cpu, cpu-slim or cuda, not ${FLAVOUR}" >&2; exit 1 ;; \
    esac \
    # Names that nothing links to.
    && find /out/opt/onnxruntime/lib -type f -name 'libonnxruntime.so.*' -exec strip --strip-unneeded {} + \
    && scripts/get-viewer.sh /out/opt/ahi-inference/ui \
    && mkdir -p /out/etc/ssl/certs \
    && cat /usr/share/ca-certificates/mozilla/*.crt >/out/etc/ssl/certs/ca-certificates.crt

FROM ${CPU_BASE} AS base-cpu

FROM ${CPU_BASE} AS base-cpu-slim

# A GPU that cannot be used is an error there, not a slow answer.
FROM ${CUDA_BASE} AS base-cuda
ENV EXECUTION_PROVIDERS=cuda \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

# Everything except the program. Nothing is run in it, so the base may be one without a shell.
# hadolint ignore=DL3006
FROM base-${FLAVOUR} AS runtime
COPY --from=libraries /out/ /
COPY LICENSE /usr/share/doc/ahi-inference/
LABEL com.amazonaws.sagemaker.capabilities.accept-bind-to-port=true \
      com.amazonaws.sagemaker.capabilities.multi-models=true \
      org.opencontainers.image.title=ahi-inference \
      org.opencontainers.image.description="AWS HealthImaging in, DICOM SEG out" \
      org.opencontainers.image.licenses=Apache-2.0
# Temporary files go to /tmp, the only folder that is ever written to.
ENV HOME=/tmp
WORKDIR /
# SageMaker expects containers to start as root: it mounts models and data for that user. Everywhere else the
# container runs as 10001, as in docker/README.md, compose.yaml and kubernetes.yaml.
# hadolint ignore=DL3002
USER 0:0
EXPOSE 8080
# For plain Docker; SageMaker and Kubernetes have their own probes.
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s CMD ["/usr/local/bin/ahi-inference", "ping"]
ENTRYPOINT ["/usr/local/bin/ahi-inference"]
CMD ["serve"]

FROM ${BUILD_BASE} AS build
WORKDIR /build
# The log names the place of a panic; symbols and line tables stay out of the image.
ENV CARGO_INCREMENTAL=0 \
    CARGO_PROFILE_RELEASE_DEBUG=none \
    CARGO_PROFILE_RELEASE_STRIP=symbols
# The dependencies as a separate layer, which changes to the source do not invalidate.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
    && touch src/lib.rs \
    && echo 'fn main() {}' >src/main.rs \
    && cargo build --release --locked \
    && rm -r src
COPY src src
# Cargo goes by the modification times of files, and these are older than the empty ones above.
RUN touch src/lib.rs src/main.rs \
    && cargo build --release --locked \
    && mkdir -p /out/usr/local/bin \
    && cp target/release/ahi-inference /out/usr/local/bin/

FROM runtime
ARG REVISION=unknown
LABEL org.opencontainers.image.revision=${REVISION}
COPY --from=build /out/ /
