# Any machine, x86 or Arm, without a GPU: the server with the bundled model.
#   docker build -f deploy/desktop/cpu.Dockerfile -t idetex-edge:cpu .
#   docker run --rm -p 127.0.0.1:8000:8000 -e IDETEX_API_KEY=... idetex-edge:cpu
FROM python:3.12-slim

COPY pyproject.toml README.md LICENSE /src/
COPY idetex_edge /src/idetex_edge
RUN pip install --no-cache-dir "/src[serve]" && rm -rf /src

RUN useradd --create-home --uid 10001 idetex
# By number, so that a cluster can tell that it is not root.
USER 10001
EXPOSE 8000
ENTRYPOINT ["idetex-edge"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
