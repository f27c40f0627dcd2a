"""Rendering of templates: Jinja2, with filters that quote values for a shell and for YAML."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ligr_jax.atomic import read_text
from ligr_jax.errors import LigrError

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).parent / "templates"


class TemplateError(LigrError):
    """A template cannot be rendered."""


def load_template(path: Path) -> "jinja2.Template":
    """Return a template.

    Values are inserted unquoted. The filter `sh` quotes a word, or the words of a list, for a
    shell, and the filter `yaml` quotes a value for YAML.

    Args:
        path: file of the template.

    Raises:
        TemplateError: Jinja2 is not installed, or the template has a syntax error.
    """
    try:
        import jinja2
    except ImportError as e:
        raise TemplateError(
            "`ligr launch` needs Jinja2: pip install 'ligr-jax[launch]' (or: pip install jinja2)"
        ) from e
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"sh": _shell, "yaml": _yaml}
    try:
        return environment.from_string(read_text(path))
    except jinja2.TemplateSyntaxError as e:
        raise TemplateError(f"{path}, line {e.lineno}: {e.message}; correct that line") from e


def render(template: "jinja2.Template", path: Path, values: Mapping[str, Any]) -> str:
    """Render a template.

    Args:
        template: the template.
        path: its file, for messages.
        values: values by name.

    Raises:
        TemplateError: the template uses a name that has no value.
    """
    import jinja2

    try:
        return template.render(values)
    except jinja2.UndefinedError as e:
        names = ", ".join(sorted(values))
        raise TemplateError(f"{path}: {e.message}; the names are {names}") from e


def _shell(value: str | Sequence[str]) -> str:
    return shlex.quote(value) if isinstance(value, str) else shlex.join(value)


def _yaml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)  # JSON is YAML
