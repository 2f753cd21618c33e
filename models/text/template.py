"""Chat templates as data: how a dialogue becomes one sequence of tokens, in Jinja as Transformers renders it.

Each file of `templates/` is one, called by its name; its first comment names the tokens that it writes. A template is
stored with the tokenizer, so that any program that applies it writes dialogues as training did. `generation` blocks
mark what the assistant says, with the token that ends it; Transformers reads them as the assistant mask.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import TemplateError, TemplateSyntaxError
from transformers.utils.chat_template_utils import render_jinja_template

from datalake.errors import UserError
from models.text.config import ASSISTANT, SYSTEM, TEMPLATES, USER

# Role -> the special token that its message opens with; a tool's result has two of its own.
ROLES = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}


def read(path: Path) -> str:
    """A template as it is stored with a tokenizer. Raises UserError where it is none."""
    try:
        template = path.read_text(encoding="utf-8").rstrip("\n")
        render_jinja_template([[{"role": "user", "content": "-"}]], chat_template=template)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the chat template {path} can't be read: {' '.join(str(error).split())[:200]}") from None
    except TemplateSyntaxError as error:
        raise UserError(f"{path} is no Jinja template: {error.message} (line {error.lineno})") from None
    except (TemplateError, TypeError, ValueError, LookupError):
        pass  # it wants more than a question
    return template


CHAT_TEMPLATE = read(TEMPLATES / "headwater.jinja")
