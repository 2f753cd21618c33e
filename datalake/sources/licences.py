"""SPDX identifiers of installed Python distributions, from their metadata.

`License-Expression` (PEP 639) is SPDX already; else the free text of `License` is known by name, else the trove
classifiers are mapped, joined by OR as PEP 639 suggests for more than one. What can't be mapped is None, not a guess.
"""

from __future__ import annotations

import re
from importlib.metadata import Distribution
from typing import Any

_CLASSIFIERS = {
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Apache Software License": "Apache-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "ISC License (ISCL)": "ISC",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "zlib/libpng License": "Zlib",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "GNU Affero General Public License v3": "AGPL-3.0-only",
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "Historical Permission Notice and Disclaimer (HPND)": "HPND",
}
_NAMES = {
    "mit": "MIT", "mit license": "MIT", "mit licence": "MIT", "the mit license": "MIT", "the mit license (mit)": "MIT",
    "apache 2": "Apache-2.0", "apache 2.0": "Apache-2.0", "apache-2": "Apache-2.0", "apache-2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0", "apache license, version 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0", "apache license version 2.0": "Apache-2.0",
    "bsd 3-clause license": "BSD-3-Clause", "3-clause bsd license": "BSD-3-Clause", "bsd-3-clause": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause", "new bsd": "BSD-3-Clause", "new bsd license": "BSD-3-Clause",
    "bsd 2-clause license": "BSD-2-Clause", "bsd-2-clause": "BSD-2-Clause", "simplified bsd": "BSD-2-Clause",
    "isc": "ISC", "isc license": "ISC", "mpl-2.0": "MPL-2.0", "mpl 2.0": "MPL-2.0", "psf-2.0": "PSF-2.0",
    "psf": "PSF-2.0", "unlicense": "Unlicense", "zlib": "Zlib", "0bsd": "0BSD", "mit-0": "MIT-0",
}  # fmt: skip
_SPDX = re.compile(r"[A-Za-z0-9.+-]+(?: (?:AND|OR|WITH) [A-Za-z0-9.+-]+)+")


def distribution_licence(distribution: Distribution) -> str | None:
    """The SPDX expression of a distribution's licence, None where its metadata doesn't say one."""
    metadata: Any = distribution.metadata  # an email.message.Message; typeshed knows less of it
    classifiers = [value for key, value in metadata.items() if key == "Classifier"]
    return licence(metadata.get("License-Expression"), metadata.get("License"), classifiers)


def licence(expression: str | None, text: str | None, classifiers: list[str]) -> str | None:
    """The SPDX expression of a licence given as PEP 639 expression, as free text or as trove classifiers."""
    if expression and expression.strip():
        return " ".join(expression.split())
    first = (text or "").strip().split("\n")[0].strip()
    if known := _NAMES.get(first.lower()):
        return known
    if _SPDX.fullmatch(first):
        return first
    names = [value.rpartition("::")[2].strip() for value in classifiers if value.startswith("License ::")]
    mapped = [_CLASSIFIERS.get(name) for name in names if name != "OSI Approved"]
    if mapped and all(mapped):
        return " OR ".join(sorted({name for name in mapped if name}))
    return None
