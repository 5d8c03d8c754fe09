"""The contender "FastAPI with Redis": uvicorn with uvloop and httptools, INCR for each click.

`uvicorn bench.contenders.fastapi_redis:app`; the Redis server's port is in REDIS_PORT. The answer
is a ready Response, not a dict that FastAPI would validate and encode: the fast way to write it.
"""

from __future__ import annotations

import os

import redis.asyncio as redis
from fastapi import FastAPI, Response

MAX_ID = 99_999
BODY = b'{"status":"counted"}'
HEADERS = {"access-control-allow-origin": "*"}

app = FastAPI()
store = redis.Redis(port=int(os.environ.get("REDIS_PORT", "6379")))


@app.post("/counter/{banner}")
async def click(banner: int) -> Response:
    """Count one click."""
    if not 0 <= banner <= MAX_ID:
        return Response(b'{"code":"unknown_banner"}', 404, media_type="application/json")
    await store.incr(f"counter:{banner}")
    return Response(BODY, headers=HEADERS, media_type="application/json")


@app.get("/total")
async def total() -> Response:
    """The sum of all counters, to check the run."""
    keys = await store.keys("counter:*")
    values = await store.mget(keys) if keys else []
    return Response(str(sum(int(value or 0) for value in values)), media_type="text/plain")
