"""sparsefield serve: a page in the browser to observe, reconstruct and compare."""

import logging
import sys
import webbrowser
from importlib.util import find_spec
from typing import Annotated

from tyro.conf import arg

from sparsefield.core.errors import InputError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def command(
    host: Annotated[str, arg(metavar="ADDRESS")] = "127.0.0.1",
    port: Annotated[int, arg(metavar="N")] = 8765,
    open: bool = False,
) -> int:
    """Serve the page until interrupted. Nothing leaves this machine.

    Args:
        host: Address to listen at. By default only this machine is answered; 0.0.0.0 lets the
            network in.
        port: Port to listen at.
        open: Open the page in a browser.
    """
    missing = [name for name in ("starlette", "uvicorn") if not find_spec(name)]
    if missing:
        raise InputError(f"the page needs {' and '.join(missing)}: install sparsefield[web]")
    if not 0 <= port < 65536:
        raise InputError(f"a port is a number from 0 to 65535, not {port}")
    logging.getLogger("sparsefield.data").setLevel(logging.WARNING)
    import uvicorn

    from sparsefield.web.app import build_app

    local = host in LOOPBACK
    if not local:
        print("anyone who reaches this address can use the page", file=sys.stderr)
    app = build_app(() if local else ("*",))
    address = f"http://{'localhost' if local else host}:{port}"
    print(f"{address}  (Ctrl-C ends it)", flush=True)
    if open:
        webbrowser.open(address)
    uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=2)
    return 0
