"""What may change when a run goes on from its saved state, and what the change means."""

from typing import Any, NamedTuple

from sparsefield.core.errors import InputError
from sparsefield.core.files import dump_json
from sparsefield.models import ALIASES
from sparsefield.training.config import TrainConfig, config_to_dict

SAME_BITS = "the weights stay the same bit for bit"
ROUNDING = "results agree up to rounding, no longer bit for bit"

# Settings that may change without a word from the user, and what follows.
FREE = {
    "epochs": "the learning rate follows the schedule of the new length from here on",
    "steps": "the learning rate follows the schedule of the new length from here on",
    "batch_size": "an epoch that is not finished starts again in the new batches",
    "data.paths": f"it must hold the same fields; then {SAME_BITS}",
    "data.split": f"it must hold the same fields; then {SAME_BITS}",
    "data.values": f"it must hold the same fields; then {SAME_BITS}",
    "data.period": f"it must hold the same fields; then {SAME_BITS}",
    "data.coords": f"it must hold the same fields; then {SAME_BITS}",
    "data.item": f"it must hold the same fields; then {SAME_BITS}",
    "data.channels": f"it must hold the same fields; then {SAME_BITS}",
    "data.image_size": f"it must hold the same fields; then {SAME_BITS}",
    "init": "it is not read again; the weights are those of the saved state",
    "device": ROUNDING,
    "precision": ROUNDING,
    "recompute": SAME_BITS,
    "eval_every": f"{SAME_BITS}; the best are chosen after other epochs",
    "save_every": SAME_BITS,
    "visualize_every": SAME_BITS,
    "resume_every": SAME_BITS,
}
# Settings whose change makes another run of it, which the user has to ask for.
ASKED = {
    "flow.mean_fraction",
    "flow.contrast_weight",
    "data.fine",
    "data.scales",
    "data.own_cells",
    "data.density",
    "data.masks",
    "data.target",
    "data.queries",
    "data.window",
    "data.flip",
    "optimizer.lr",
    "optimizer.weight_decay",
    "optimizer.beta2",
    "optimizer.warmup",
    "optimizer.clip",
    "optimizer.ema",
}
# Settings that decide which fields are held out: changed, the best weights would be chosen by
# fields that were trained on.
SPLITTING = {"seed", "data.limit", "data.validation"}
FLAG = "--allow-changes"


class Change(NamedTuple):
    """A setting, its value before and its value now."""

    key: str
    before: Any
    now: Any

    def __str__(self) -> str:
        """Describe the change as `key before -> now`."""
        return f"{self.key} {dump_json(self.before)} -> {dump_json(self.now)}"


def find_changes(before: TrainConfig, now: TrainConfig) -> list[Change]:
    """Return the settings that differ, by name."""
    old, new = (_flatten(config_to_dict(config)) for config in (before, now))
    for flat in (old, new):  # a model has one name here
        flat["model.name"] = ALIASES.get(flat["model.name"], flat["model.name"])
    return [
        Change(key, old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def check_changes(changes: list[Change], folder: str, allowed: bool) -> None:
    """Refuse changes with which the saved state means nothing, or that nobody asked for.

    Args:
        changes: What differs from the settings that the state was saved under.
        folder: Folder of the run.
        allowed: Whether the user asked for changes.

    Raises:
        InputError: A change is refused; the message says what to do instead.
    """
    barred = [change for change in changes if change.key not in FREE.keys() | ASKED]
    if barred:
        why = (
            "fields that were trained on would choose the best weights"
            if all(change.key in SPLITTING for change in barred)
            else "its saved state is that of another model"
        )
        raise InputError(
            f"{folder} holds a run with other settings ({_join(barred)}), and {why}; repeat its "
            f"settings to resume, or start another --run folder with init={folder}"
        )
    asked = [change for change in changes if change.key in ASKED]
    if asked and not allowed:
        raise InputError(
            f"{folder} holds a run with other settings ({_join(asked)}); repeat its settings to "
            f"resume, add {FLAG} to go on with these from its saved state, or choose another "
            "--run folder"
        )


def describe_changes(changes: list[Change], resumes: bool) -> list[str]:
    """Return a line per change that says what it means for a run that resumes, or starts anew."""
    other = "the run goes on under it from here on"
    fresh = "no step was saved, so the run starts anew"
    return [
        f"changed: {change}; {FREE.get(change.key, other) if resumes else fresh}"
        for change in changes
    ]


def _join(changes: list[Change]) -> str:
    return "; ".join(map(str, changes))


def _flatten(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat
