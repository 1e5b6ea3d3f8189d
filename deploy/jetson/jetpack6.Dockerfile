# JetPack 6.2 (Orin, sm_87): CUDA 12.6, TensorRT 10.3, Python 3.10. Bundles for `tensorrt-10.3`.
#   docker build -f deploy/jetson/jetpack6.Dockerfile -t idetex-edge:jetpack6 .
#   docker run --rm --runtime nvidia -v "$PWD:/data" -v engines:/var/cache/idetex-edge \
#       idetex-edge:jetpack6 assess /data/photo.jpg --bundle /data/BUNDLE --engine tensorrt
FROM nvcr.io/nvidia/l4t-jetpack:r36.4.0

RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-pip python3-libnvinfer \
    && rm -rf /var/lib/apt/lists/*

COPY pyproject.toml README.md LICENSE /src/
COPY idetex_edge /src/idetex_edge
# The CUDA bindings follow JetPack's CUDA; TensorRT's Python module is the system's own.
RUN pip3 install --no-cache-dir /src "cuda-bindings>=12.6,<13" && rm -rf /src

ENV IDETEX_CACHE=/var/cache/idetex-edge
RUN useradd --create-home --uid 10001 --groups video idetex && install -d -o idetex "$IDETEX_CACHE"
# By number, so that a cluster can tell that it is not root.
USER 10001
ENTRYPOINT ["idetex-edge"]
CMD ["doctor"]
