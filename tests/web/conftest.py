"""A server on this machine, and a real browser where Chromium and Playwright are installed."""

import shutil
import socket
import threading
import time
from contextlib import contextmanager

import pytest

PATIENCE = 240_000  # milliseconds


@contextmanager
def serving(app):
    """Serve an application on a free port of this machine; yield its address."""
    uvicorn = pytest.importorskip("uvicorn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


@contextmanager
def opened(browser, address, **settings):
    """Open the page, whose scripts must not complain."""
    page = browser.new_context(
        **{"viewport": {"width": 1280, "height": 860}, **settings}
    ).new_page()
    page.set_default_timeout(PATIENCE)
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    page.get_by_role("button", name="cat").wait_for()
    yield page
    page.context.close()
    assert not complaints


class Gate:
    """Loads models once it is open."""

    def __init__(self):
        self.open = threading.Event()

    def load(self, name):
        from sparsefield.inference.loading import load

        assert self.open.wait(120)
        return load(name)


@pytest.fixture(scope="module")
def address():
    pytest.importorskip("starlette")
    pytest.importorskip("skimage")
    from sparsefield.web.app import build_app

    with serving(build_app()) as address:
        yield address


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address, request):
    with opened(browser, address, **getattr(request, "param", {})) as page:
        yield page


@pytest.fixture
def gated(browser):
    """The page of a server whose models are loaded when the gate is opened, and the gate."""
    from sparsefield.web.app import build_app
    from sparsefield.web.models import Models
    from sparsefield.web.work import Tools

    gate = Gate()
    with (
        serving(build_app(tools=Tools(models=Models(gate.load)))) as address,
        opened(browser, address) as page,
    ):
        yield page, gate
        gate.open.set()
