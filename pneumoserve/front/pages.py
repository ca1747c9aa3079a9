"""/docs: Swagger UI over /openapi.json, from files of this installation, so that no network is needed."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response

from pneumoserve.front.description import describe
from pneumoserve.front.paths import add_path

# Nothing is loaded from elsewhere, nothing of the page runs that is not a file of it, and no page may frame it. Swagger
# UI sets styles, and has its icons as data.
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
# Addresses are relative: a gateway may serve this below a path of its own.
_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>pneumoserve</title>
<link rel="icon" href="docs/favicon-32x32.png"><link rel="stylesheet" href="docs/swagger-ui.css"></head>
<body><div id="page"></div>
<script src="docs/swagger-ui-bundle.js"></script><script src="docs/start.js"></script></body>
</html>
"""
_START: Final = """\
SwaggerUIBundle({url: "openapi.json", dom_id: "#page", deepLinking: true, validatorUrl: null, tryItOutEnabled: true});
"""
_FILES: Final = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png")


def add_docs(app: FastAPI) -> None:
    """Add the document, the page and its files."""
    folder = Path(str(resources.files("fastapi_swagger"))) / "resources"

    async def page() -> Response:
        return HTMLResponse(_PAGE, headers=_HEADERS)

    async def file(name: str) -> Response:
        if name == "start.js":
            return Response(_START, headers=_HEADERS, media_type="text/javascript")
        if name not in _FILES:
            raise HTTPException(404)
        return FileResponse(folder / name, headers=_HEADERS)

    async def document() -> Response:
        return JSONResponse(describe(app), headers=_HEADERS)

    add_path(app, "/openapi.json", document, include_in_schema=False)
    add_path(app, "/docs", page, include_in_schema=False)
    add_path(app, "/docs/{name}", file, include_in_schema=False)
