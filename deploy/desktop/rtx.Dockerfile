# Any x86 machine with an RTX card: TensorRT-RTX comes as a wheel. Bundles for `tensorrt-rtx`.
#   docker build -f deploy/desktop/rtx.Dockerfile -t idetex-edge:rtx .
#   docker run --rm --gpus all -v "$PWD:/data" -v engines:/var/cache/idetex-edge \
#       idetex-edge:rtx assess /data/photo.jpg --bundle /data/BUNDLE --engine tensorrt
FROM nvcr.io/nvidia/cuda:12.8.1-base-ubuntu24.04

RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*

COPY pyproject.toml README.md LICENSE /src/
COPY idetex_edge /src/idetex_edge
RUN python3 -m venv /opt/idetex \
    && /opt/idetex/bin/pip install --no-cache-dir "/src[tensorrt]" \
    && rm -rf /src

ENV PATH=/opt/idetex/bin:$PATH IDETEX_CACHE=/var/cache/idetex-edge
RUN useradd --create-home --uid 10001 idetex && install -d -o idetex "$IDETEX_CACHE"
# By number, so that a cluster can tell that it is not root.
USER 10001
ENTRYPOINT ["idetex-edge"]
CMD ["doctor"]
