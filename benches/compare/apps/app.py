"""Applications of both kinds that answer with the process's number, /compute after 200 ms of work."""

import os
import time


def answer(path):
    if path == "/compute":
        until = time.monotonic() + 0.2
        while time.monotonic() < until:
            pass
    return b"%d" % os.getpid()


def wsgi(environment, start_response):
    body = answer(environment["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    body = answer(scope["path"])
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
