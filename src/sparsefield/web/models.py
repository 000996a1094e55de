"""Bundled models, each loaded once, where nobody has to wait for the end of it."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, wait

from sparsefield.inference.loading import AnyModel, load

POLL, KEPT = 0.05, 4  # seconds; models


class Models:
    """The models that were asked for last.

    Each is loaded in a thread of its own, which goes on for the next one who asks when somebody
    loses interest.

    Args:
        load: Returns a model by its name.
    """

    def __init__(self, load: Callable[[str], AnyModel] = load) -> None:
        self._load = load
        self._futures: OrderedDict[str, Future[AnyModel]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str, check: Callable[[], None]) -> AnyModel:
        """Return a model, loading it if need be.

        Args:
            name: Its name.
            check: Called many times a second; what it raises ends the waiting.

        Raises:
            InputError: There is no such model, or its file is damaged.
        """
        future = self._future(name)
        while not wait([future], POLL).done:
            check()
        return future.result()

    def _future(self, name: str) -> Future[AnyModel]:
        with self._lock:
            future = self._futures.get(name)
            if future is None or _failed(future):
                future = self._futures[name] = Future()
                threading.Thread(target=self._fill, args=(future, name), daemon=True).start()
            self._futures.move_to_end(name)
            while len(self._futures) > KEPT:
                self._futures.popitem(last=False)
            return future

    def _fill(self, future: Future[AnyModel], name: str) -> None:
        try:
            future.set_result(self._load(name))
        except BaseException as error:  # raised where somebody waits
            future.set_exception(error)


def _failed(future: Future[AnyModel]) -> bool:
    return future.done() and future.exception() is not None
