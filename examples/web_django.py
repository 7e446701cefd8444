"""A web service on Django, without await: each process is a client of the node on its machine.

A whole project in one file. Run it with, in this directory:

    quorate shell quorate.machines:KV --peer peer1@127.0.0.1:7001 --data-dir data --local /run/app/quorate.sock
    gunicorn web_django:application --workers 2 --threads 4 --preload
"""

from __future__ import annotations

import os
from collections.abc import Callable

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.http import require_http_methods

from quorate import OutcomeUnknown, Rejected, Unavailable
from quorate.blocking import connect
from quorate.machines import KV

# One client for the whole project, such as in the module of an app. Nothing is opened before its first call, and a
# process that is forked afterwards opens connections and a session of its own.
kv = connect(KV, os.environ.get("QUORATE", "unix:/run/app/quorate.sock")).with_options(timeout=2.0)


@require_http_methods(["GET", "PUT"])
def entry(request: HttpRequest, key: str) -> HttpResponse:
    if request.method == "PUT":
        return JsonResponse(kv.write(KV.set, key, request.GET["value"]), safe=False)
    try:
        return JsonResponse(kv.read(KV.get, key), safe=False)
    except Rejected as refused:
        return JsonResponse({"detail": str(refused)}, status=404)


class ExplainOutages:
    """Middleware that says whether a request may have had an effect: 503 may be repeated, 504 is in doubt."""

    def __init__(self, respond: Callable[[HttpRequest], HttpResponse]) -> None:
        self.respond = respond

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.respond(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        match error:
            case Unavailable():
                return JsonResponse({"detail": str(error)}, status=503, headers={"Retry-After": "1"})
            case OutcomeUnknown():
                return JsonResponse({"detail": str(error)}, status=504)
            case _:
                return None


urlpatterns = [path("<str:key>", entry)]

settings.configure(
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[f"{__name__}.ExplainOutages"],
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    SECRET_KEY=os.environ.get("SECRET_KEY", "only for this example"),
)
application = get_wsgi_application()
