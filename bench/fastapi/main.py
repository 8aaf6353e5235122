"""The peer: the design that this project started from, a FastAPI service with prometheus-client. main.py ADDRESS

GET /api/users/{id} gives byte for byte the JSON of api-monitoring, from users in a dict. A middleware counts and times
requests by method, route template and status, and GET /metrics gives the metrics. uvicorn serves it with one worker, on
the loop and the parser of uvicorn[standard], and without an access log.
"""

import sys
import time

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel


class User(BaseModel):
    id: int
    name: str
    email: str


app = FastAPI()
users = {id: User(id=id, name=f"User {id}", email=f"user{id}@example.com") for id in range(1, 1001)}

registry = CollectorRegistry()
requests_total = Counter(
    "http_requests_total", "Requests answered.", ["method", "endpoint", "status"], registry=registry
)
request_duration = Histogram(
    "http_request_duration_seconds", "Time until the answer.", ["method", "endpoint"], registry=registry
)
requests_in_progress = Gauge("http_requests_in_progress", "Requests being handled now.", registry=registry)


@app.middleware("http")
async def measure(request: Request, call_next):
    start = time.perf_counter()
    status = 500
    requests_in_progress.inc()
    try:
        response = await call_next(request)
        status = response.status_code
        return response
    finally:
        requests_in_progress.dec()
        # Known once routing is done.
        route = request.scope.get("route")
        endpoint = route.path if route else "unmatched"
        request_duration.labels(request.method, endpoint).observe(time.perf_counter() - start)
        requests_total.labels(request.method, endpoint, status).inc()


@app.get("/health")
async def health():
    return {"status": "healthy"}


@app.get("/metrics")
async def metrics():
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


@app.get("/api/users/{id}")
async def user_by_id(id: int) -> User:
    user = users.get(id)
    if user is None:
        raise HTTPException(status_code=404, detail="User not found")
    return user


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: main.py ADDRESS")
    host, _, port = sys.argv[1].rpartition(":")
    uvicorn.run(app, host=host, port=int(port), access_log=False, log_level="warning")
