"""Tools that a policy may call while it answers: each other file here is one, and a recipe names it by the file's name.

A file has `tool(**options) -> Tool`; the options are what a recipe may say of it. What a tool gives is an observation:
it stands in the answer, and trains nothing.
"""

from models.rl.tools.config import ToolUse

__all__ = ["ToolUse"]
