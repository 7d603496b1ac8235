"""The web application of `lalm data view`, on Starlette.

    GET  /                          the page (static/page.html, page.css, page.js)
    GET  /api/items?task=&state=    numbers, ids, tasks and verdicts
    GET  /api/items/7               one record with its verdict
    GET  /clips/7/0                 its first clip
    GET  /pictures/7/0              the clip's waveform and spectrogram
    POST /api/items/7/review        {"verdict": "accept" | "reject" | "clear", "note": "..."}

Clips are reached by number only, and only inside the data folder. The page has no password: it listens on loopback, and
answers only to loopback host names, so that no web site can reach it through a name of its own.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_builders.view.items import Item, clip_path, load_items
from data_builders.view.picture import clip_picture
from data_builders.view.review import ReviewFile
from lalm.audio.io import load_audio, probe_audio
from lalm.errors import AudioError, DataError, MissingPackageError

if TYPE_CHECKING:
    from starlette.applications import Starlette

LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
STATIC = Path(__file__).parent / "static"
PLAYED = {".wav": "audio/wav", ".flac": "audio/flac", ".ogg": "audio/ogg", ".mp3": "audio/mpeg", ".opus": "audio/ogg"}
"""Endings that browsers play; other clips are sent as WAV."""
PICTURE_RATE_HZ = 16_000
MAX_BODY_BYTES = 16_384
HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def make_app(folder: Path, items: list[Item], review: ReviewFile, *, hosts: tuple[str, ...] = LOOPBACK) -> Starlette:
    """The application over loaded records. `hosts` are the names it answers to; ("*",) answers to any.

    Raises:
        MissingPackageError: without starlette.
    """
    try:
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.requests import Request
        from starlette.responses import FileResponse, JSONResponse, Response
        from starlette.routing import Mount, Route
        from starlette.staticfiles import StaticFiles
    except ImportError:
        raise MissingPackageError("starlette", "the page of `lalm data view`", "view") from None

    def problem(text: str, status: int) -> Response:
        return JSONResponse({"error": text}, status, HEADERS)

    def item_of(request: Request) -> Item | None:
        number = request.path_params["number"]
        return items[number] if 0 <= number < len(items) else None

    def clip_of(request: Request) -> Path | None:
        item = item_of(request)
        return clip_path(folder, item, request.path_params["place"]) if item else None

    async def page(request: Request) -> Response:
        return FileResponse(STATIC / "page.html", headers=HEADERS)

    async def list_items(request: Request) -> Response:
        task, state = request.query_params.get("task", ""), request.query_params.get("state", "")
        rows = [row for number, item in enumerate(items) if (row := summary(number, item, review))]
        chosen = [
            row
            for row in rows
            if (not task or row["task"] == task) and (not state or (row["verdict"] or "open") == state)
        ]
        tasks = dict(sorted(Counter(row["task"] for row in rows).items()))
        return JSONResponse({"items": chosen, "tasks": tasks, "counts": review.counts()}, headers=HEADERS)

    async def one_item(request: Request) -> Response:
        item = item_of(request)
        if item is None:
            return problem("no such record", 404)
        number = request.path_params["number"]
        found = {"record": item.record.to_json(), **summary(number, item, review)}
        return JSONResponse(found | {"note": review.verdict(item.file, item.record.id)[1]}, headers=HEADERS)

    def clip(request: Request) -> Response:
        path = clip_of(request)
        if path is None:
            return problem("no such clip in the data folder", 404)
        if path.suffix.lower() in PLAYED:
            return FileResponse(path, media_type=PLAYED[path.suffix.lower()], headers=HEADERS)
        try:
            return Response(as_wav(path), media_type="audio/wav", headers=HEADERS)
        except AudioError as error:
            return problem(str(error), 422)

    def picture(request: Request) -> Response:
        path = clip_of(request)
        if path is None:
            return problem("no such clip in the data folder", 404)
        try:
            return Response(cached_picture(path, path.stat().st_mtime_ns), media_type="image/png", headers=HEADERS)
        except AudioError as error:
            return problem(str(error), 422)

    async def decide(request: Request) -> Response:
        item = item_of(request)
        if item is None:
            return problem("no such record", 404)
        # A page of another site can send a form or text without asking, but not this type.
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return problem("send application/json", 415)
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY_BYTES:
                return problem(f"more than {MAX_BODY_BYTES} bytes", 413)
        try:
            value: Any = json.loads(body)
            review.add(item.file, item.record.id, value["verdict"], value.get("note", ""))
        except DataError as error:
            return problem(str(error), 422)
        except (ValueError, KeyError, TypeError, AttributeError):
            return problem('send {"verdict": "accept", "note": ""}', 422)
        return JSONResponse(
            summary(request.path_params["number"], item, review) | {"counts": review.counts()}, headers=HEADERS
        )

    return Starlette(
        routes=[
            Route("/", page),
            Route("/api/items", list_items),
            Route("/api/items/{number:int}", one_item),
            Route("/api/items/{number:int}/review", decide, methods=["POST"]),
            Route("/clips/{number:int}/{place:int}", clip),
            Route("/pictures/{number:int}/{place:int}", picture),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)],
    )


def serve(
    path: Path,
    *,
    review: Path | None = None,
    sample: int = 500,
    seed: int = 0,
    host: str = "127.0.0.1",
    port: int = 8765,
    report: Callable[[str], None] = print,
) -> None:
    """Loads the records and serves the page until it is stopped.

    Raises:
        DataError: if there are no records, or the review file is broken.
        MissingPackageError: without starlette or uvicorn.
    """
    folder, items = load_items(path, sample=sample, seed=seed)
    decisions = ReviewFile(review or folder / "review.jsonl")
    hosts = LOOPBACK if host in LOOPBACK else ("*",)
    app = make_app(folder, items, decisions, hosts=hosts)
    try:
        import uvicorn
    except ImportError:
        raise MissingPackageError("uvicorn", "the page of `lalm data view`", "view") from None
    report(f"{len(items)} records of {path}; decisions go to {decisions.path}")
    if hosts == ("*",):
        report(f"Warning: {host} is no loopback address; anyone who reaches it can listen and review.")
    report(f"http://{host}:{port}/  (stop with Ctrl+C)")
    uvicorn.run(app, host=host, port=port, log_level="warning")


def summary(number: int, item: Item, review: ReviewFile) -> dict[str, Any]:
    """What the list shows of a record."""
    return {
        "number": number,
        "id": item.record.id,
        "file": item.file,
        "task": item.record.task,
        "question": item.record.question,
        "verdict": review.verdict(item.file, item.record.id)[0],
    }


def as_wav(path: Path) -> bytes:
    """A clip that browsers do not play, as 16-bit WAV at its own rate."""
    import soundfile

    rate = probe_audio(path).sample_rate_hz
    out = io.BytesIO()
    soundfile.write(out, load_audio(path, rate), rate, format="WAV", subtype="PCM_16")
    return out.getvalue()


@lru_cache(maxsize=256)
def cached_picture(path: Path, changed_ns: int) -> bytes:
    """The picture of a clip, drawn once for each version of its file."""
    return clip_picture(load_audio(path, PICTURE_RATE_HZ), PICTURE_RATE_HZ)
