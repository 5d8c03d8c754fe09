# One image for every role: `clickmill ingest`, `clickmill aggregator`, or the whole as `up`.
FROM python:3.13-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
RUN python -m venv /opt/clickmill
COPY requirements.lock ./
RUN /opt/clickmill/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml setup.py schema.sql README.md LICENSE ./
COPY migrations migrations
COPY clickmill clickmill
COPY ingest ingest
COPY aggregator aggregator
COPY stack stack
COPY scripts/page scripts/page
RUN python -m venv /tmp/node && scripts/page /tmp/node/bin/python && rm -rf /tmp/node
RUN /opt/clickmill/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.13-slim-bookworm
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin clickmill \
    && install -d -o clickmill -g clickmill -m 700 /data
COPY --from=build /opt/clickmill /opt/clickmill
ENV PATH=/opt/clickmill/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    CLICKMILL_HOST=0.0.0.0 \
    CLICKMILL_DATA_DIR=/data
USER clickmill
WORKDIR /data
VOLUME /data
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
ENTRYPOINT ["clickmill"]
CMD ["up"]
