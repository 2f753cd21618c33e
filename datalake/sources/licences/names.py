"""SPDX identifiers of licences that are called by other names: free words and trove classifiers.

Classifiers are joined by OR as PEP 639 suggests for more than one. What can't be mapped is None, not a guess.
"""

from __future__ import annotations

import re

from datalake.sources.licences.spdx import all_of, canonical_licence
from datalake.sources.licences.texts import licences_in

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
# Words that name a family of licences, and how the identifiers of that family begin.
_FAMILIES = {
    "mit": "mit", "apache": "apache", "bsd": "bsd", "gpl": "gpl", "gnu": "gpl", "lgpl": "lgpl", "agpl": "agpl",
    "mpl": "mpl", "mozilla": "mpl", "isc": "isc", "psf": "psf", "python": "psf", "boost": "bsl", "epl": "epl",
    "eclipse": "epl", "zlib": "zlib", "unlicense": "unlicense", "cc": "cc", "creative": "cc",
}  # fmt: skip
_DENIALS = frozenset((
    "not", "no", "non", "except", "proprietary", "commercial", "confidential", "unlicensed", "eula", "reserved",
    "private", "internal", "restricted", "closed", "custom",
))  # fmt: skip


def known_licence(text: str) -> str | None:
    """The SPDX expression of a licence by its name, its expression or its whole text; None where it isn't known."""
    first = text.strip().split("\n")[0].strip()
    plain = re.sub(r"[,\s]+", " ", first.lower()).removeprefix("the ").removesuffix(" license").strip()
    plain = plain.replace(" software license", "").replace(" license", "").replace("version ", "")
    for name in (first.lower(), plain):
        if known := _NAMES.get(name):
            return known
    if len(text) > 400:  # characters: no name, but the text itself
        return all_of(licences_in(text))
    return canonical_licence(first)


def trove_names(classifiers: list[str]) -> list[str]:
    """What the trove classifiers among these say of a licence."""
    names = [value.rpartition("::")[2].strip() for value in classifiers if value.startswith("License ::")]
    return [name for name in names if name and name != "OSI Approved"]


def trove_licence(names: list[str]) -> str | None:
    """The SPDX expression of trove classifiers, None where one of them says none."""
    mapped = [_CLASSIFIERS.get(name) for name in names]
    return " OR ".join(sorted({name for name in mapped if name})) or None if all(mapped) else None


def may_mean(words: str, expression: str) -> bool:
    """Whether words that leave a licence open (`BSD`, `see the licence file`) may stand for this one.

    Those that name another family, or forbid (`Proprietary`), may not.
    """
    tokens = re.findall(r"[a-z]+", words.lower())
    if not _DENIALS.isdisjoint(tokens):
        return False
    families = {_FAMILIES[word] for token in tokens for word in (token, token.rstrip("v")) if word in _FAMILIES}
    heads = tuple(re.findall(r"[a-z][\w.-]*", expression.lower()))
    return not families or any(family in head for family in families for head in heads)
