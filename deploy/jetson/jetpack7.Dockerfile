# JetPack 7 (Thor, sm_110): CUDA 13, Python 3.12. Bundles for `tensorrt-10.16` or `tensorrt-11`.
# Thor runs the containers of Arm servers (SBSA).
#   docker build -f deploy/jetson/jetpack7.Dockerfile -t idetex-edge:jetpack7 .
#   docker run --rm --runtime nvidia -v "$PWD:/data" -v engines:/var/cache/idetex-edge \
#       idetex-edge:jetpack7 assess /data/photo.jpg --bundle /data/BUNDLE --engine tensorrt
FROM nvcr.io/nvidia/cuda:13.0.1-runtime-ubuntu24.04

RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv python3-libnvinfer \
    && rm -rf /var/lib/apt/lists/*

COPY pyproject.toml README.md LICENSE /src/
COPY idetex_edge /src/idetex_edge
# The environment sees the system's own TensorRT module.
RUN python3 -m venv --system-site-packages /opt/idetex \
    && /opt/idetex/bin/pip install --no-cache-dir /src "cuda-bindings>=13,<14" \
    && rm -rf /src

ENV PATH=/opt/idetex/bin:$PATH IDETEX_CACHE=/var/cache/idetex-edge
RUN useradd --create-home --uid 10001 --groups video idetex && install -d -o idetex "$IDETEX_CACHE"
# By number, so that a cluster can tell that it is not root.
USER 10001
ENTRYPOINT ["idetex-edge"]
CMD ["doctor"]
