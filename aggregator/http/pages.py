"""The live page and the pages beside it: files of this host alone, read once at start.

All links in them are relative, since a proxy may serve them under a path of its own.

Our own files lie in `page/`; what the npm registry gives lies in `page/lib/`, put there by
`make page` from the lock file. The files are the same for everyone and hold no statistics, so they
are open; the two pages themselves answer 401 without a token, with the form that asks for it.
Not the framework's static files: those neither compress nor answer If-None-Match with 304.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Final

from litestar import Response, get
from litestar.params import FromPath

from aggregator.http.middleware import AnyRequest, respond
from aggregator.http.parts import File, FromParts
from aggregator.reading.formats import JSON, Answer
from clickmill.contract.problem import Problem

PAGE_DIR: Final = Path(__file__).parents[1] / "page"
PREFIX: Final = "/page/"
MAX_FILE_BYTES: Final = 4 * 1024 * 1024
# What must be there for the pages to work; the rest of lib/ is not served.
LIBRARIES: Final = ("uPlot.esm.js", "uPlot.min.css", "swagger-ui-bundle.js", "swagger-ui.css")
HTML_PAGES: Final = {"/": "index.html", "/docs": "docs.html", "/start": "start.html"}
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Nothing inline, nothing from elsewhere. data: images are the documentation page's own icons.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_OPEN_TAG: Final = b'<html lang="en">'
_NEEDED_TAG: Final = b'<html lang="en" data-token="needed">'


def read_files(folder: Path = PAGE_DIR) -> dict[str, File]:
    """Every file of the pages by its name under `folder`; libraries only where they are built."""
    paths = [path for path in folder.iterdir() if path.suffix in _TYPES]
    paths += [folder / "lib" / name for name in LIBRARIES if (folder / "lib" / name).is_file()]
    return {str(path.relative_to(folder)): _read(path) for path in paths}


def _read(path: Path) -> File:
    body = path.read_bytes()
    if len(body) > MAX_FILE_BYTES:
        raise ValueError(f"{path} has {len(body)} bytes: at most {MAX_FILE_BYTES} are served")
    etag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
    return File(_TYPES[path.suffix], body, etag)


def html(files: Mapping[str, File], path: str, locked: bool) -> Answer:
    """The page of this path. `locked`: it asks for a token, and says so with a 401.

    Raises Problem (page_not_built) while the libraries are missing.
    """
    missing = [name for name in LIBRARIES if f"lib/{name}" not in files]
    if missing:
        sentence = f"the pages lack {', '.join(missing)}: type make page, then start again"
        raise Problem(HTTPStatus.NOT_FOUND, "page_not_built", sentence)
    body = files[HTML_PAGES[path]].body
    headers = {"Content-Security-Policy": POLICY}
    if locked:
        headers["WWW-Authenticate"] = "Bearer"
        body = body.replace(_OPEN_TAG, _NEEDED_TAG)
    status = HTTPStatus.UNAUTHORIZED if locked else HTTPStatus.OK
    return Answer(status, _TYPES[".html"], body, headers)


def asking(files: Mapping[str, File], path: str) -> Answer | None:
    """The page of this path with the form for the token; None where it has no page."""
    if path not in HTML_PAGES:
        return None
    try:
        return html(files, path, locked=True)
    except Problem:
        return None


@get(list(HTML_PAGES), include_in_schema=False)
async def page(request: AnyRequest, parts: FromParts) -> Response[bytes]:
    """A page."""
    path = request.scope["path"]
    # With a slash at its end, which the framework drops, its links would lead astray.
    if path != "/" and request.scope["raw_path"].endswith(b"/"):
        location = {"Location": f"..{path}"}
        return Response(b"", status_code=HTTPStatus.PERMANENT_REDIRECT, headers=location)
    return respond(html(parts.files, path, locked=False))


@get("/page/{name:path}", include_in_schema=False)
async def page_file(name: FromPath[str], request: AnyRequest, parts: FromParts) -> Response[bytes]:
    """A file of the pages."""
    file = parts.files.get(name.lstrip("/"))
    if file is None or name.endswith(".html"):
        raise Problem(HTTPStatus.NOT_FOUND, "not_found", "there is no such file: see / and /docs")
    headers = {"ETag": file.etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if request.headers.get("if-none-match") == file.etag:
        return Response(b"", status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return respond(Answer(200, file.content_type, file.zipped, headers))
    return respond(Answer(200, file.content_type, file.body, headers))


@get("/openapi.json", include_in_schema=False)
async def document(parts: FromParts) -> Response[bytes]:
    """The OpenAPI document."""
    return respond(Answer(200, JSON, parts.document()))


HANDLERS: Final = [page, page_file, document]
