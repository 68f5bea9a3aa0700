"""The service as a Ray Serve application: `sml-dist serve EXPORT`, or `import_path: sml_dist.serve.application:build` in a RayService.

    POST /v1/predict   rows as JSON or Arrow IPC (requests.py) -> scores
    GET  /v1/model     inputs, layers, metrics
    GET  /healthz      200 while there is a model; open to all
    GET  /metrics      for Prometheus
    GET  /             a page to try a row

Every answer has the model's version, in its header and, where it is JSON, in its body. Requests that wait while a batch is
scored are the next batch: under load batches grow by themselves, and a request alone waits for nobody.
"""

import asyncio
import hashlib
import hmac
import logging
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from pydantic import PositiveFloat, PositiveInt, ValidationError
from ray import serve
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from sml_dist.serve.current import Current
from sml_dist.serve.metrics import Metrics
from sml_dist.serve.model import Answer, ServedModel
from sml_dist.serve.requests import ARROW, JSON, MAX_LIST_VALUES, Ask, Refusal, failure, parse
from sml_dist.spec import InputError, first_fault, from_dict, one_line, spec

log = logging.getLogger("ray.serve")

TOKEN = "SML_DIST_TOKEN"
VERSION_HEADER = "x-model-version"
PAGE = Path(__file__).with_name("page.html")
# The page is one file: it may load nothing, and speak to this service alone.
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; connect-src 'self'; frame-ancestors 'none'"
)


@spec
class Settings:
    """`export`: a folder, or a link to one.

    The token is never here. `token_sha256` is its digest, where who starts the service has read it; else each replica reads the
    token itself, from `token_file` or its own environment's SML_DIST_TOKEN, and asks for none where there is neither.
    `concurrency`: requests of a replica at a time; more are told to come back (429).
    """

    export: str
    token_file: str | None = None
    token_sha256: str | None = None
    max_rows: PositiveInt = 4096
    max_list_values: PositiveInt = MAX_LIST_VALUES
    max_body_bytes: PositiveInt = 8 << 20
    concurrency: PositiveInt = 256
    replicas: PositiveInt = 1
    watch_seconds: PositiveFloat = 1.0


def build(arguments: dict[str, Any]) -> serve.Application:
    """The application of Settings as plain data. Raises InputError."""
    try:
        settings = from_dict(Settings, arguments)
    except ValidationError as error:
        raise InputError(f"serve: {first_fault(error)}") from None
    # more than `concurrency`, so that it is we who answer those above it; Serve's own 503 comes far beyond
    ongoing = 2 * settings.concurrency + 64
    limits = {"num_replicas": settings.replicas, "max_ongoing_requests": ongoing, "max_queued_requests": 4 * ongoing}
    return Service.options(**limits).bind(arguments)


def read_token(path: str | None) -> str | None:
    """The bearer token, or None for a service that asks for none. Raises InputError."""
    if path is None:
        return os.environ.get(TOKEN, "").strip() or None
    try:
        token = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"token file {path} cannot be read: {one_line(error)}") from None
    if not token:
        raise InputError(f"token file {path} is empty")
    return token


def digest_of(token: str | None) -> str | None:
    return token and hashlib.sha256(token.encode()).hexdigest()


@serve.deployment(name="sml-dist", graceful_shutdown_timeout_s=30, health_check_period_s=5)
class Service:
    def __init__(self, arguments: dict[str, Any]):
        self.settings = from_dict(Settings, arguments)
        self.token = self.settings.token_sha256 or digest_of(read_token(self.settings.token_file))
        self.current = Current(self.settings.export, self.settings.watch_seconds)
        self.metrics = Metrics(serve.get_replica_context().replica_id.unique_id)
        self.open = 0
        self.routes = {
            ("POST", "/v1/predict"): self.predict,
            ("GET", "/v1/model"): self.describe,
            ("GET", "/healthz"): self.health,
            ("GET", "/metrics"): self.tell,
            ("GET", "/"): self.page,
        }
        self.score.set_max_batch_size(self.settings.max_rows)

    async def __call__(self, request: Request) -> Response:
        path = request.url.path
        self.open += 1
        try:
            response = await self.route(request, path)
        except Refusal as refusal:
            response = self.refused(refusal)
        except Exception:  # counted and answered as everything is
            log.exception(f"{request.method} {path[:100]} failed")
            response = self.refused(failure())
        finally:
            self.open -= 1
        known = path if any(path == route for _, route in self.routes) else "other"
        self.metrics.answered(known, response.status_code)
        response.headers.setdefault(VERSION_HEADER, self.current.model.version)
        response.headers["x-content-type-options"] = "nosniff"
        return response

    async def route(self, request: Request, path: str) -> Response:
        methods = [method for method, route in self.routes if route == path]
        if not methods:
            raise Refusal(404, "not_found", f"there is no {path[:100]!r}; there are {', '.join(route for _, route in self.routes)}")
        if request.method not in methods:
            raise Refusal(405, "method", f"{path} takes {methods[0]}")
        if path not in ("/healthz", "/"):
            self.authorize(request)
        return await self.routes[methods[0], path](request)

    def refused(self, refusal: Refusal) -> Response:
        error = {"code": refusal.code, "message": refusal.message}
        headers = {401: {"www-authenticate": "Bearer"}, 429: {"retry-after": "1"}}.get(refusal.status)
        return JSONResponse({"model_version": self.current.model.version, "error": error}, refusal.status, headers)

    def authorize(self, request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").encode("latin-1").partition(b" ")
        digest = hashlib.sha256(given.strip()).hexdigest()
        if self.token and not (scheme.lower() == b"bearer" and hmac.compare_digest(digest, self.token)):
            raise Refusal(401, "token", "give the service's token: Authorization: Bearer TOKEN")

    async def predict(self, request: Request) -> Response:
        if self.open > self.settings.concurrency:
            raise Refusal(429, "busy", f"{self.settings.concurrency} requests are being answered; come back in a second")
        started, model = time.perf_counter(), self.current.model
        explain = request.query_params.get("contributions") == "true"
        kind = request.headers.get("content-type", "")
        limits = {"max_rows": self.settings.max_rows, "max_values": self.settings.max_list_values}
        # others are answered meanwhile; nothing here keeps the body, which is let go before the score is awaited
        ask = await asyncio.to_thread(parse, kind, await self.body(request), model.schema, contributions=explain, **limits)
        answer = await self.score((model, ask))
        if isinstance(answer, Refusal):
            raise answer
        self.metrics.seconds.labels(self.metrics.replica).observe(time.perf_counter() - started)
        self.metrics.rows.labels(self.metrics.replica, answer.version).inc(len(answer.logit))
        media, write = (ARROW, answer.as_arrow) if ARROW in request.headers.get("accept", "") else (JSON, answer.as_json)
        return Response(write(), headers={VERSION_HEADER: answer.version}, media_type=media)

    async def body(self, request: Request) -> bytes:
        """Read as far as is allowed."""
        limit, parts, size = self.settings.max_body_bytes, [], 0
        claimed = request.headers.get("content-length", "")
        try:
            async for part in request.stream():
                parts.append(part)
                size += len(part)
                if size > limit or (claimed.isascii() and claimed.isdigit() and int(claimed[:20]) > limit):
                    raise Refusal(413, "body_too_large", f"the body has more than {limit} bytes; send the rows in parts")
        except ClientDisconnect:
            raise Refusal(400, "disconnected", "the client left before its body was read") from None
        return b"".join(parts)

    # max_batch_size is set to max_rows above; no wait: see the module
    @serve.batch(max_batch_size=1, batch_wait_timeout_s=0.0, batch_size_fn=lambda items: sum(ask.size for _, ask in items))
    async def score(self, items: list[tuple[ServedModel, Ask]]) -> list[Answer | Refusal]:
        """Each request by the model that it came to, so that its check and its score are one model's."""
        self.metrics.batch.labels(self.metrics.replica).observe(sum(len(ask.rows) for _, ask in items))
        return await asyncio.to_thread(self._score, items)

    @staticmethod
    def _score(items: list[tuple[ServedModel, Ask]]) -> list[Answer | Refusal]:
        answers: list[Any] = [None] * len(items)
        models = defaultdict(list)
        for place, (model, _) in enumerate(items):
            models[model].append(place)
        for model, places in models.items():
            for place, answer in zip(places, model.score([items[place][1] for place in places]), strict=True):
                answers[place] = answer
        return answers

    async def describe(self, request: Request) -> Response:
        limits = {name: getattr(self.settings, name) for name in ("max_rows", "max_list_values", "max_body_bytes")}
        return JSONResponse(self.current.model.about | limits)

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "model_version": self.current.model.version})

    async def told(self) -> tuple[float, str]:
        """For the command that started the service, see Current."""
        return self.current.told

    async def tell(self, request: Request) -> Response:
        self.metrics.open.labels(self.metrics.replica).set(self.open)
        text = self.metrics.text(self.current.model.version, self.current.swaps, self.current.refused)
        return Response(text, media_type="text/plain; version=0.0.4")

    async def page(self, request: Request) -> Response:
        headers = {"content-security-policy": PAGE_POLICY, "referrer-policy": "no-referrer"}
        return Response(PAGE.read_bytes(), headers=headers, media_type="text/html; charset=utf-8")
