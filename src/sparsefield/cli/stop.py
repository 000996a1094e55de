"""sparsefield stop: save a run and end its process."""

from sparsefield.cli.options import RunName
from sparsefield.cli.status import Status, find_run


def command(run: RunName) -> int:
    """Save the state of a run and end its process; the same train command resumes it.

    Args:
        run: Folder of the run, or its name below runs/.
    """
    found = find_run(run)
    if found.stop():
        step = Status(found).saved_step
        print(f"{found.folder} stopped, saved at step {step}; its train command resumes it")
    else:
        print(f"{found.folder} is not training")
    return 0
