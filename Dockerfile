# One image for all roles: `clickmill ingest`, `clickmill aggregator`, or the whole system with `up`. It
# listens on all addresses of its container, so it needs tokens:
#   docker run -e CLICKMILL_STATS_TOKEN=... -e CLICKMILL_WRITE_TOKEN=... clickmill
FROM python:3.13.14-slim-bookworm@sha256:67a1e1f215ccda113cfc024e8639049257e88f273898f595b61476d128d387e8 AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# Build tools are in a separate environment, which is not copied to the final image.
RUN python -m venv /opt/clickmill && python -m venv /opt/build
COPY requirements.lock requirements-build.lock requirements-node.lock ./
RUN /opt/clickmill/bin/pip install --no-cache-dir --require-hashes -r requirements.lock \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes -r requirements-build.lock
COPY scripts/page scripts/npm scripts/
COPY aggregator aggregator
RUN scripts/page /opt/build/bin/python
COPY pyproject.toml setup.py schema.sql README.md LICENSE ./
COPY migrations migrations
COPY clickmill clickmill
COPY ingest ingest
COPY stack stack
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel . \
    && /opt/clickmill/bin/pip install --no-cache-dir --no-deps /wheel/*.whl

FROM python:3.13.14-slim-bookworm@sha256:67a1e1f215ccda113cfc024e8639049257e88f273898f595b61476d128d387e8
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin clickmill \
    && install -d -o clickmill -g clickmill -m 700 /data
COPY --from=build /opt/clickmill /opt/clickmill
ENV PATH=/opt/clickmill/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    CLICKMILL_HOST=0.0.0.0 \
    CLICKMILL_STATS_HOST=0.0.0.0 \
    CLICKMILL_DATA_DIR=/data
USER clickmill
WORKDIR /data
VOLUME /data
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
ENTRYPOINT ["clickmill"]
CMD ["up"]
