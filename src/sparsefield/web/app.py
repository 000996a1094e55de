"""The server: addresses, limits, and who may see what."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from secrets import token_urlsafe
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from sparsefield.core.errors import InputError
from sparsefield.core.version import code_version
from sparsefield.data.formats import Task, handlers
from sparsefield.web.jobs import Busy, Job, JobQueue
from sparsefield.web.samples import SAMPLES, sample
from sparsefield.web.uploads import MOST_PIXELS, Upload, Uploads
from sparsefield.web.work import (
    MOST_SAMPLES,
    Request,
    Result,
    Tools,
    bundled_names,
    reconstruct,
)

STATIC = Path(__file__).parent / "static"
MOST_BYTES = 32 * 2**20  # of one file
LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "testserver")
COOKIE = "sparsefield"
POLL, HEARTBEAT = 0.1, 15.0  # seconds
# Nothing is fetched from elsewhere, and no other page may show or fetch this one.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; "
        "base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class TooLarge(InputError):
    """A file is larger than what is accepted."""


class Missing(InputError):
    """There is no such file or job, or it is another user's."""


CODES: dict[type[InputError], int] = {TooLarge: 413, Missing: 404, Busy: 429, InputError: 400}


def build_app(hosts: tuple[str, ...] = (), tools: Tools | None = None) -> Starlette:
    """Return the page as an application, with a queue and a folder of its own.

    Args:
        hosts: Names, besides those of this machine, by which browsers may ask for it.
        tools: Where models are loaded and baselines are computed; new ones by default.
    """
    server = Server(tools or Tools())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(server.close)

    names = ["*"] if "*" in hosts else [*LOOPBACK, *hosts]
    app = Starlette(
        routes=server.routes(),
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=names),
            Middleware(BaseHTTPMiddleware, dispatch=_guard),
        ],
        exception_handlers={InputError: _refuse, ClientDisconnect: _nobody},
        lifespan=lifespan,
    )
    app.state.server = server
    return app


async def _guard(
    request: HTTPRequest, answer: Callable[[HTTPRequest], Awaitable[Response]]
) -> Response:
    """Give every browser a name of its own, and refuse what other sites make it send."""
    origin = request.headers.get("origin")
    if origin and urlsplit(origin).netloc != request.headers.get("host"):
        return JSONResponse({"error": "another site sent this; it is refused"}, 403)
    known = request.cookies.get(COOKIE)
    request.state.owner = known or token_urlsafe(16)
    response = await answer(request)
    response.headers.update(HEADERS)
    if not known:
        response.set_cookie(COOKIE, request.state.owner, httponly=True, samesite="strict")
    return response


async def _refuse(request: HTTPRequest, error: Exception) -> JSONResponse:
    code = next(code for kind, code in CODES.items() if isinstance(error, kind))
    return JSONResponse({"error": " ".join(str(error).split())}, code)


async def _nobody(request: HTTPRequest, error: Exception) -> Response:
    """Answer those who went away while they sent; nobody reads it."""
    return Response(status_code=400)


class Server:
    """What the addresses answer."""

    def __init__(self, tools: Tools) -> None:
        self.uploads, self.jobs, self.tools = Uploads(), JobQueue(), tools

    def close(self) -> None:
        """End the work and remove the files."""
        self.jobs.close()
        self.tools.aside.close()
        self.uploads.close()

    def routes(self) -> list[Route | Mount]:
        """Return the addresses."""
        return [
            Route("/", self.page),
            Route("/api/options", self.options),
            Route("/api/uploads", self.upload, methods=["POST"]),
            Route("/api/samples/{name}", self.take_sample, methods=["POST"]),
            Route("/api/uploads/{id}/picture.png", self.picture),
            Route("/api/uploads/{id}/stations", self.stations),
            Route("/api/jobs", self.submit, methods=["POST"]),
            Route("/api/jobs/{id}", self.status),
            Route("/api/jobs/{id}/events", self.events),
            Route("/api/jobs/{id}/cancel", self.cancel, methods=["POST"]),
            Route("/api/jobs/{id}/arrays/{name}", self.array),
            Route("/api/jobs/{id}/field{suffix}", self.download),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]

    async def page(self, request: HTTPRequest) -> Response:
        """Answer with the page."""
        return FileResponse(STATIC / "index.html")

    async def options(self, request: HTTPRequest) -> Response:
        """Say what can be chosen."""
        return JSONResponse(
            {
                "models": bundled_names(),
                "samples": list(SAMPLES),
                "inputs": _possible("observation"),
                "outputs": _possible("field"),
                "most_samples": MOST_SAMPLES,
                "most_pixels": MOST_PIXELS,
                "most_bytes": MOST_BYTES,
                "version": code_version()[:12],
            }
        )

    async def upload(self, request: HTTPRequest) -> Response:
        """Keep a file and describe it."""
        data = await _body(request)
        name = request.query_params.get("name", "file")
        return await self._keep(request, name, data)

    async def take_sample(self, request: HTTPRequest) -> Response:
        """Keep a sample as if the user had brought it."""
        name, data = await run_in_threadpool(sample, request.path_params["name"])
        return await self._keep(request, name, data)

    async def _keep(self, request: HTTPRequest, name: str, data: bytes) -> Response:
        upload = self.uploads.add(request.state.owner, name, data)
        return JSONResponse(await run_in_threadpool(upload.describe))

    async def picture(self, request: HTTPRequest) -> Response:
        """Answer with the pixels of an image."""
        png = await run_in_threadpool(self._upload(request).png)
        return Response(png, media_type="image/png")

    async def stations(self, request: HTTPRequest) -> Response:
        """Answer with the measurements of a table, by the columns that are named."""
        upload = self._upload(request)
        asked = Request.parse(request.query_params.get("options", "{}"))
        try:
            return JSONResponse(await run_in_threadpool(upload.stations, asked))
        except InputError as error:
            raise upload.explain(error) from error

    async def submit(self, request: HTTPRequest) -> Response:
        """Put a reconstruction of the file that is sent into the queue."""
        asked = Request.parse(request.query_params.get("options", "{}"))
        name = request.query_params.get("name", "file")
        upload = self.uploads.add(request.state.owner, name, await _body(request))
        job = self.jobs.submit(request.state.owner, partial(_work, upload, asked, self.tools))
        return JSONResponse(self._state(job), 202)

    async def status(self, request: HTTPRequest) -> Response:
        """Say how a job is doing."""
        return JSONResponse(self._state(self._job(request)))

    async def cancel(self, request: HTTPRequest) -> Response:
        """Ask a job to end."""
        job = self._job(request)
        job.cancel()
        return JSONResponse(self._state(job))

    async def events(self, request: HTTPRequest) -> Response:
        """Stream how a job is doing until it ends."""
        job = self._job(request)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._watch(job), media_type="text/event-stream", headers=headers)

    async def _watch(self, job: Job) -> AsyncIterator[str]:
        last, silent = "", 0.0
        while True:
            ended, now = job.ended, json.dumps(self._state(job))
            if now != last:
                yield f"data: {now}\n\n"
                last, silent = now, 0.0
            if ended:
                return
            if silent >= HEARTBEAT:
                yield ": still here\n\n"
                silent = 0.0
            await asyncio.sleep(POLL)
            silent += POLL

    async def array(self, request: HTTPRequest) -> Response:
        """Answer with the numbers of an array, float32, little endian."""
        arrays, name = self._result(request).arrays, request.path_params["name"]
        if name not in arrays:
            raise Missing(f"no array '{name}'; there are {', '.join(arrays)}")
        numbers = np.ascontiguousarray(arrays[name], "<f4").tobytes()
        return Response(numbers, media_type="application/octet-stream")

    async def download(self, request: HTTPRequest) -> Response:
        """Answer with the field as a file."""
        suffix = request.path_params["suffix"]
        field = self._result(request).field
        data = await run_in_threadpool(_written, field, suffix)
        headers = {"Content-Disposition": f'attachment; filename="field{suffix}"'}
        return Response(data, media_type="application/octet-stream", headers=headers)

    def _state(self, job: Job) -> dict[str, Any]:
        state = {"id": job.id, "state": job.state, "doing": job.doing, "share": job.share}
        if job.state == "queued":
            state["ahead"] = self.jobs.ahead(job)
        if job.error:
            state["error"] = " ".join(job.error.split())
        if job.state == "done":
            state["result"] = job.result.facts
        return state

    def _upload(self, request: HTTPRequest) -> Upload:
        found = self.uploads.find(request.state.owner, request.path_params["id"])
        if found is None:
            raise Missing("this file is no longer here; bring it again")
        return found

    def _job(self, request: HTTPRequest) -> Job:
        found = self.jobs.find(request.state.owner, request.path_params["id"])
        if found is None:
            raise Missing("this job is no longer here; run it again")
        return found

    def _result(self, request: HTTPRequest) -> Result:
        job = self._job(request)
        if job.state != "done":
            raise Missing("this job has no result yet")
        result: Result = job.result
        return result


def _work(upload: Upload, asked: Request, tools: Tools, job: Job) -> Result:
    try:
        return reconstruct(upload.path, asked, job, tools)
    except InputError as error:
        raise upload.explain(error) from error


async def _body(request: HTTPRequest) -> bytes:
    """Return the content of a request, as far as it is accepted.

    Raises:
        TooLarge: It is larger.
    """
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BYTES:
            raise TooLarge(f"files up to {MOST_BYTES // 2**20} MiB are accepted here")
        parts.append(part)
    return b"".join(parts)


def _possible(task: Task) -> list[str]:
    """Return the suffixes of single files for which all packages are there."""
    found = [each for each in handlers(task) if not each.folders and not each.lacks()]
    return [suffix for each in found for suffix in each.suffixes]


def _written(field: Any, suffix: str) -> bytes:
    if suffix not in (known := _possible("field")):
        raise Missing(f"no '{suffix}' here; fields are written as {', '.join(known)}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"field{suffix}"
        field.save(path)
        return path.read_bytes()
