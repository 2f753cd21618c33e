"""A word, wherever no language's own segmentation is named: what is counted of answers, and what questions share."""

from __future__ import annotations

import re

WORD = re.compile(r"[\u3400-\u9fff]|[^\W_]+")  # a Chinese character is one
