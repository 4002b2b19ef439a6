from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


def test_x(served, visit):
    r = served.predict(visit)
    print(r.status_code, r.text[:600])
    print(served.client.get("/metrics").text[:1500])
    for p in ("/nope", "/", "/docs.json", "/livez", "/readyz", "/v1/models/", "/v1/CANARY"):
        r = served.client.get(p)
        print(p, r.status_code, r.headers.get("content-type"), r.text[:80])
    for m in ("DELETE", "OPTIONS", "HEAD", "PUT"):
        r = served.client.request(m, "/v1/models")
        print(m, r.status_code, r.headers, r.text[:80])
    print([(w.memory_info().rss >> 20) for w in served.workers])
    print(served.stop())
    print(served.said)
