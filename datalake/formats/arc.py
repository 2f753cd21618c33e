"""The lines that begin records of ARC archives (Internet Archive, versions 1 and 2), read as a WARC record's fields.

Version 1 has five fields, `URL IP date type length`; version 2 has ten, `URL IP date type result checksum location
offset filename length`. An archive begins with a record `filedesc://`, which says the version; lines are told by their
number of fields, so that a record picked alone is read without it. Addresses may hold spaces: old crawls' do.
"""

from __future__ import annotations

import re

_URL = rb"(?P<url>[A-Za-z][A-Za-z0-9+.-]{0,30}:[^\r\n]{0,8192}?)"
_MIDDLE = rb" (?P<ip>[0-9A-Fa-f.:]{1,45}|-) (?P<date>\d{12,14}|\d{8}) (?P<type>[^ \r\n]{1,256})"
_SECOND = (
    rb"(?: (?P<result>\d{1,3}|-) (?P<checksum>[^ \r\n]{1,256}) (?P<location>[^\r\n]{1,8192}?)"
    rb" (?P<offset>\d{1,19}|-) (?P<filename>[^ \r\n]{1,1024}))?"
)
_LINE = _URL + _MIDDLE + _SECOND + rb" (?P<length>\d{1,18})[ \t]*\r?\n"
LINE = re.compile(_LINE)
START = re.compile(rb"(?m)^" + _LINE)
END_OF_LINE = re.compile(rb"\n")


def fields(header: bytes) -> dict[str, str]:
    """The fields of a line under the names that a WARC record has for them.

    A record of an http address is a `response`, the version block a `warcinfo`; others hold what their type says, as
    a `resource` does.
    """
    line = LINE.match(header)
    if line is None:
        return {}
    text = {name: value.decode("utf-8", "replace") for name, value in line.groupdict(b"").items()}
    scheme = text["url"].partition(":")[0].lower()
    kind = {"http": "response", "https": "response", "filedesc": "warcinfo"}.get(scheme, "resource")
    out = {
        "warc-type": kind,
        "warc-target-uri": text["url"],
        "warc-date": _date(text["date"]),
        "warc-ip-address": text["ip"],
        "content-type": "application/http; msgtype=response" if kind == "response" else text["type"],
        "content-length": text["length"],
    }
    if text["filename"]:
        out["warc-filename"] = text["filename"]
    return out


def _date(digits: str) -> str:
    """`2008-04-30T20:48:25Z` of `20080430204825`; what is missing of the time is zero."""
    digits = digits.ljust(14, "0")
    parts = [digits[:4], *(digits[at : at + 2] for at in range(4, 14, 2))]
    return "{}-{}-{}T{}:{}:{}Z".format(*parts)
