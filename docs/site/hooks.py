"""What the site has beside the pages of this folder: references, and the files that pages link to.

The commands print their own help and the settings of a run their own documentation, so that
neither can fall behind the code. Where a page links to a file outside of this folder, the site
gets a copy of it.
"""

import contextlib
import dataclasses
import inspect
import io
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT / "src"), str(DOCS / "site")]

from maths import Maths  # noqa: E402, it stands beside this file

LINK = re.compile(r"(\]\()([^)#\s:]+)((?:#[^)\s]*)?\))")
# Page -> (title, objects).
REFERENCES = {
    "python": (
        "In Python",
        ["sparsefield." + name for name in (
            "read example Observation Frame Grid Points load Model Posterior Field reconstruct "
            "Interpolator SparseFieldRegressor open_dataset build_model"
        ).split()],
    ),
    "layers": (
        "Layers",
        ["sparsefield.nn.scan.selective_scan"]
        + ["sparsefield.nn.mamba_ssm." + name for name in (
            "selective_scan_fn selective_state_update causal_conv1d_fn causal_conv1d_update Mamba "
            "InferenceParams"
        ).split()],
    ),
    "contracts": (
        "Contracts",
        [f"sparsefield.testing.check_{name}" for name in ("backbone", "sampler", "format")]
        + ["sparsefield.flow.backbone.Backbone"],
    ),
}  # fmt: skip


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Show mathematics as such, in pages and in docstrings."""
    config.markdown_extensions.append(Maths())  # type: ignore[arg-type]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add colours, the references, and the files outside of this folder that pages link to."""
    files.append(File.generated(config, "site/code.css", content=colours()))
    pages = {"commands": commands(), "settings": settings(), "samplers": samplers()}
    pages |= {name: objects(*what) for name, what in REFERENCES.items()}
    for name, content in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    for path in sorted(_linked(DOCS.rglob("*.md"))):
        files.append(_copy(path, config))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to files outside of this folder at their copies."""
    origin = _origin(page.file)

    def point(match: re.Match[str]) -> str:
        target = (origin.parent / match[2]).resolve()
        if not target.is_file() or (target.is_relative_to(DOCS) and origin.is_relative_to(DOCS)):
            return match[0]
        depth = page.file.src_uri.count("/")
        return f"{match[1]}{'../' * depth}{_address(target)}{match[3]}"

    return LINK.sub(point, markdown)


def colours() -> str:
    """Return the colours of code, on light and on dark ground."""
    from pygments.formatters import HtmlFormatter

    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs("[data-bs-theme=dark] .highlight")
    return f"{light}\n{dark}\n"


def commands() -> str:
    """Return the page of all commands: what each prints as its help."""
    from sparsefield.cli import COMMANDS

    parts = ["# Commands\n\nWhat `sparsefield COMMAND --help` prints.\n"]
    for name, (_, summary) in COMMANDS.items():
        parts.append(f"\n## {name}\n\n{summary[0].upper()}{summary[1:]}.\n")
        parts.append(f"\n```text\n{_help(name)}\n```\n")
    return "".join(parts)


def _help(name: str) -> str:
    from sparsefield.cli import main

    text = io.StringIO()
    with (
        contextlib.redirect_stdout(text),
        contextlib.suppress(SystemExit),
        mock.patch.dict("os.environ", COLUMNS="96", NO_COLOR="1"),
    ):
        main([name, "--help"])
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text.getvalue())
    return "\n".join(line.rstrip() for line in plain.strip().splitlines())


def settings() -> str:
    """Return the page of the settings of a training run, from their documentation."""
    from sparsefield.training.config import TrainConfig

    parts = [
        "# Settings of a run\n\nA preset holds them; `sparsefield train PRESET KEY=VALUE ...` "
    ]
    parts.append("changes them. Those of `model` are the arguments of the backbone.\n")
    parts += _fields(TrainConfig, "")
    return "".join(parts)


def _fields(kind: type, prefix: str) -> Iterator[str]:
    texts = dict(
        re.findall(
            r'^    (\w+):(?:(?!^    \w+:).)*?^    """(.*?)"""',
            inspect.getsource(kind),
            re.M | re.S,
        )
    )
    hints = typing.get_type_hints(kind)
    groups = []
    yield "\n| setting | default | meaning |\n|---|---|---|\n"
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[field.name]):
            groups.append((hints[field.name], f"{prefix}{field.name}."))
            continue
        text = " ".join(texts.get(field.name, "").split()).replace("|", "\\|")
        yield f"| `{prefix}{field.name}` | {_default(field)} | {text} |\n"
    for group, name in groups:
        yield f"\n## {name[:-1]}\n\n{inspect.getdoc(group)}\n"
        yield from _fields(group, name)


def _default(field: "dataclasses.Field[object]") -> str:
    value = field.default
    if value is dataclasses.MISSING or value in ("", ()):
        return ""
    return f"`{list(value) if isinstance(value, tuple) else value}`"


def samplers() -> str:
    """Return the page of all samplers."""
    from sparsefield.samplers import SAMPLERS

    classes = [f"{each.__module__}.{each.__qualname__}" for each in SAMPLERS.values()]
    names = ", ".join(f"`{name}`" for name in SAMPLERS)
    return objects("Samplers", classes, f"On the command line they are {names}.")


def objects(title: str, names: list[str], text: str = "") -> str:
    """Return a page with the documentation of some objects."""
    return f"# {title}\n\n{text}\n\n" + "\n".join(f"::: {_home(name)}\n" for name in names)


def _home(name: str) -> str:
    """Return where a public name is defined, which is found without running its lazy import."""
    import importlib

    module, _, attribute = name.rpartition(".")
    value = getattr(importlib.import_module(module), attribute)
    return f"{value.__module__}.{value.__qualname__}"


def _linked(pages: "Iterator[Path] | list[Path]") -> set[Path]:
    """Return the files outside of this folder that pages link to, directly or through others."""
    found: set[Path] = set()
    waiting = list(pages)
    while waiting:
        page = waiting.pop()
        for _, link, _ in LINK.findall(page.read_text(encoding="utf-8")):
            target = (page.parent / link).resolve()
            if target.is_file() and not target.is_relative_to(DOCS) and target not in found:
                found.add(target)
                waiting += [target] if target.suffix == ".md" else []
    return found


def _address(path: Path) -> str:
    """Return where a file of the repository is on the site."""
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    name = path.relative_to(ROOT).as_posix()
    return f"repository/{name}.md" if path.suffix in (".py", ".toml") else f"repository/{name}"


def _origin(file: File) -> Path:
    """Return the file of the repository that a page was made from."""
    if file.src_uri.startswith("repository/"):
        return ROOT / file.src_uri.removeprefix("repository/")
    return DOCS / file.src_uri


def _copy(path: Path, config: MkDocsConfig) -> File:
    if path.suffix not in (".py", ".toml"):
        return File.generated(config, _address(path), abs_src_path=str(path))
    name, code = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    language = {".py": "python", ".toml": "toml"}[path.suffix]
    return File.generated(
        config, _address(path), content=f"# `{name}`\n\n```{language}\n{code}```\n"
    )
