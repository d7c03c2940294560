# hymunet serve in a container: non-root, on a read-only file system, with no model but the packaged
# ones. Build and run (no image is published):
#
#   docker build -t hymunet .
#   docker run --rm -p 127.0.0.1:8000:8000 --read-only --tmpfs /tmp --cap-drop ALL \
#     --security-opt no-new-privileges --stop-timeout 70 --memory 6g \
#     -v "$PWD/token:/run/secrets/token:ro" hymunet isic2018-small --token-file /run/secrets/token
#
# A model of your own: -v "$PWD/runs/x:/model:ro" ... hymunet /model --token-file ...
FROM python:3.11-slim AS build
COPY constraints.txt pyproject.toml README.md LICENSE /source/
COPY src /source/src
# torch's CPU build, a fraction of the CUDA one
RUN python -m venv /opt/hymunet \
 && /opt/hymunet/bin/pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
    -c /source/constraints.txt "/source[serve]"

FROM python:3.11-slim
COPY --from=build /opt/hymunet /opt/hymunet
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin hymunet
USER 10001
# the scan is compiled at the start, some seconds, for the processor that is there: into /tmp
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["/opt/hymunet/bin/python", "-c", \
  "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["/opt/hymunet/bin/hymunet", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["isic2018-small"]
