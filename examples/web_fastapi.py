"""A web service on FastAPI whose workers share one replicated state: each is a client of the node on its machine.

Run it with, in this directory:

    quorate shell quorate.machines:KV --peer peer1@127.0.0.1:7001 --data-dir data --local /run/app/quorate.sock
    uvicorn web_fastapi:app --workers 2
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse

from quorate import Client, OutcomeUnknown, QuorateError, Rejected, Unavailable, connect
from quorate.machines import KV

ADDRESS = os.environ.get("QUORATE", "unix:/run/app/quorate.sock")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client for each worker, from its first request to its last."""
    async with connect(KV, ADDRESS) as kv:
        app.state.kv = kv.with_options(timeout=2.0)
        yield


app = FastAPI(lifespan=lifespan)


def kv_of(request: Request) -> Client[KV]:
    kv: Client[KV] = request.app.state.kv
    return kv


Entries = Annotated[Client[KV], Depends(kv_of)]


@app.get("/{key}")
async def show(key: str, kv: Entries) -> str:
    try:
        return await kv.read(KV.get, key)
    except Rejected as refused:
        raise HTTPException(404, str(refused)) from refused


@app.put("/{key}")
async def put(key: str, value: str, kv: Entries) -> str:
    return await kv.write(KV.set, key, value)


@app.exception_handler(QuorateError)
async def explain(request: Request, error: QuorateError) -> JSONResponse:
    """Say whether it may have happened: 503 may be repeated, 504 is in doubt."""
    match error:
        case Unavailable():
            return JSONResponse({"detail": str(error)}, 503, {"Retry-After": "1"})
        case OutcomeUnknown():
            return JSONResponse({"detail": str(error)}, 504)
        case _:
            return JSONResponse({"detail": str(error)}, 500)
