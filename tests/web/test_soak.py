"""Several users at once, at a small size: no request is lost."""

import importlib
from pathlib import Path

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("httpx")

ROOT = Path(__file__).parents[2]


def test_no_request_of_several_users_is_lost(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    soak = importlib.import_module("soak")
    result = soak.soak(requests=32, users=4)
    assert result["faults"] == []
    assert result["tracebacks"] == 0
    assert result["answered"] == 32
    assert {kind: each["count"] for kind, each in result["kinds"].items()} == dict.fromkeys(
        soak.KINDS, 4
    )
