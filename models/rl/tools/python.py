"""Python in the sandbox (`models.sandbox`): what a program prints, and what its last line gives. Nothing is kept from
one call to the next."""

from __future__ import annotations

from models.rl.tools.tool import Tool, parameters
from models.sandbox import Limits, run


def tool(*, seconds: float = 5.0, memory_mb: int = 1024, characters: int = 2000, unshielded: bool = False) -> Tool:
    """characters: of its output that are shown at most. unshielded: it runs even where files, network and processes
    can't be shut off."""
    limits = Limits(seconds, memory_mb, unshielded=unshielded)

    def python(code: str) -> str:
        ran = run(code, limits=limits, show=True)
        output = ran.output if len(ran.output) <= characters else f"{ran.output[:characters]}..."
        parts = [output.rstrip("\n"), f"error: {ran.error}" if ran.error else ""]
        return "\n".join(part for part in parts if part)

    schema = parameters(["code"], code=("string", "A program; what it prints and its last line's value are shown"))
    return Tool("python", "Runs a Python program, without network or files.", schema, python)
