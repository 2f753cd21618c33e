"""Templates that are a name, a year or a number in a few words: ships, countries, roads, seasons, former dates.

Formats as the templates' own pages document them; what a format only dresses (italics, links) makes no difference.
"""

from __future__ import annotations

import re

Arguments = list[str]
Named = dict[str, str]

# Codes of countries that are names of templates (`{{USA}}`, `{{GER}}`): ISO 3166-1 alpha-3 and the Olympic ones.
COUNTRIES = {
    code: name
    for line in """
    AFG Afghanistan|ALB Albania|ALG DZA Algeria|AND Andorra|ANG AGO Angola|ARG Argentina|ARM Armenia|AUS Australia
    AUT Austria|AZE Azerbaijan|BAH BHS Bahamas|BHR BRN Bahrain|BAN BGD Bangladesh|BLR Belarus|BEL Belgium|BOL Bolivia
    BIH Bosnia and Herzegovina|BRA Brazil|BUL BGR Bulgaria|CAM KHM Cambodia|CMR Cameroon|CAN Canada|CHI CHL Chile
    CHN PRC China|COL Colombia|CRC CRI Costa Rica|CRO HRV Croatia|CUB Cuba|CYP Cyprus|CZE Czech Republic
    DEN DNK Denmark|DOM Dominican Republic|ECU Ecuador|EGY Egypt|ESA SLV El Salvador|ENG England|EST Estonia
    ETH Ethiopia|FIJ FJI Fiji|FIN Finland|FRA France|GEO Georgia|GER DEU Germany|GHA Ghana|GBR UKGBI Great Britain
    GRE GRC Greece|GUA GTM Guatemala|HAI HTI Haiti|HKG Hong Kong|HUN Hungary|ISL Iceland|IND India|IDN INA Indonesia
    IRI IRN Iran|IRQ Iraq|IRL Ireland|ISR Israel|ITA Italy|CIV Ivory Coast|JAM Jamaica|JPN JAP Japan|JOR Jordan
    KAZ Kazakhstan|KEN Kenya|KOS XKX Kosovo|KUW KWT Kuwait|KGZ Kyrgyzstan|LAO Laos|LAT LVA Latvia|LIB LBN Lebanon
    LBA LBY Libya|LIE Liechtenstein|LTU Lithuania|LUX Luxembourg|MAD MDG Madagascar|MAS MYS Malaysia|MLI Mali|MLT Malta
    MEX Mexico|MDA Moldova|MON MCO Monaco|MGL MNG Mongolia|MNE Montenegro|MAR Morocco|MOZ Mozambique|MYA MMR Myanmar
    NAM Namibia|NEP NPL Nepal|NED NLD Netherlands|NZL New Zealand|NCA NIC Nicaragua|NGR NGA Nigeria|PRK North Korea
    MKD North Macedonia|NIR Northern Ireland|NOR Norway|OMA OMN Oman|PAK Pakistan|PAN Panama|PAR PRY Paraguay|PER Peru
    PHI PHL Philippines|POL Poland|POR PRT Portugal|PUR PRI Puerto Rico|QAT Qatar|ROU ROM Romania|RUS Russia|RWA Rwanda
    KSA SAU Saudi Arabia|SCO Scotland|SEN Senegal|SRB Serbia|SGP SIN Singapore|SVK Slovakia|SLO SVN Slovenia
    SOM Somalia|RSA ZAF South Africa|KOR ROK South Korea|URS Soviet Union|ESP Spain|SRI LKA Sri Lanka|SUD SDN Sudan
    SWE Sweden|SUI CHE Switzerland|SYR Syria|TPE TWN ROC Taiwan|TJK Tajikistan|TAN TZA Tanzania|THA Thailand
    TTO TRI Trinidad and Tobago|TUN Tunisia|TUR Turkey|TKM Turkmenistan|UGA Uganda|UKR Ukraine
    UAE ARE United Arab Emirates
    UK United Kingdom|USA United States|URU URY Uruguay|UZB Uzbekistan|VAT Vatican City|VEN Venezuela|VIE VNM Vietnam
    WAL Wales|YEM Yemen|YUG Yugoslavia|ZAM ZMB Zambia|ZIM ZWE Zimbabwe|GDR East Germany|FRG West Germany
    EU European Union
    """.replace("\n", "|").split("|")
    for *codes, name in [re.match(r"\s*((?:[A-Z]+ )*)(.*)", line).groups()]  # type: ignore[union-attr]
    for code in codes[0].split()
}

_SHIPS = frozenset(
    """
    USS HMS SS MV MS MT MY RMS RV HMAS HMCS HMNZS HMT HMHS INS USNS USAT USCGC USRC USAV CSS HDMS HNLMS HNoMS HSwMS HSV
    HSC GTS MF NS PS TS TSS TSMV FV RFA RRS RSS RPS PNS BRP BAP ARA TCG ORP ROKS JDS JS HMSAS SAS LÉ KRI KD SMU SMS
    """.split()  # noqa: SIM905
)


def is_ship(name: str) -> bool:
    """Whether a template's name is the prefix of ships' names."""
    return name in _SHIPS


def ship(prefix: str, positional: Arguments) -> str:
    """`{{USS|Enterprise|CVN-65|6}}`: prefix, name and, in parentheses, number, of which a format leaves some out.

    2 is the name alone, 3 the number, 4 both without the name's own, 5 without the prefix, 6 without the number. A
    prefix in words (`Japanese battleship`) says what the name is of, and stays where a name is shown.
    """
    name, number, form = [*positional, "", "", ""][:3]
    words = " " in prefix or prefix.islower()
    if form == "3" and number:
        return number
    if form == "4" and number:
        return f"{prefix} {number}".strip()
    shown = name if form in ("2", "5") and not words else f"{prefix} {name}".strip()
    return f"{shown} ({number})" if number and form in ("", "1", "5") else shown


def ship_class(positional: Arguments) -> str:
    """`{{sclass|Iowa|battleship}}`: Iowa-class battleship; a format of 0, 1, 2 or 5 leaves words out."""
    name, kind, form = [*positional, "", "", ""][:3]
    if form in ("0", "1", "2", "5"):
        return {"0": f"{name} class", "1": f"{name}-class", "2": name, "5": f"{name} class"}[form]
    return f"{name}-class {kind}".strip()


def junction(positional: Arguments) -> str:
    """`{{jct|state=NY|US|9|NY|22}}`: US 9 / NY 22; an interstate is I-5."""
    pairs = zip(positional[::2], [*positional[1::2], ""], strict=False)
    return " / ".join((f"I-{road}" if kind == "I" else f"{kind} {road}").strip() for kind, road in pairs if kind)


def ordinal(text: str) -> str:
    """3rd of 3."""
    if not text.isascii() or not text.isdecimal() or len(text) > 12:
        return text
    last = "th" if text[-2:-1] == "1" else {"1": "st", "2": "nd", "3": "rd"}.get(text[-1], "th")
    return text + last


def former_date(positional: Arguments, english: bool) -> str:
    """`{{OldStyleDate|3 March|1880|19 February}}`: 3 March [O.S. 19 February] 1880."""
    day, year, old = [*positional, "", "", ""][:3]
    if old:
        day = f"{day} [O.S. {old}]" if english else f"{day} ({old})"
    return f"{day} {year}".strip()


_CHINESE = (
    ("c", "Chinese"), ("s", "simplified Chinese"), ("t", "traditional Chinese"), ("p", "pinyin"),
    ("tp", "Tongyong Pinyin"),
    ("w", "Wade–Giles"), ("j", "Jyutping"), ("y", "Yale"), ("poj", "Pe̍h-ōe-jī"), ("l", "lit."),
)  # fmt: skip


def chinese(positional: Arguments, named: Named) -> str:
    """`{{zh|c=河谷|p=Hégǔ}}`: Chinese: 河谷; pinyin: Hégǔ; without names where `labels=no`."""
    labels = named.get("labels", "").lower() != "no"
    parts = [(f"{name}: " if labels else "") + named[key] for key, name in _CHINESE if named.get(key)]
    return "; ".join(parts) or (positional[0] if positional else "")


__all__ = ["COUNTRIES", "chinese", "former_date", "is_ship", "junction", "ordinal", "ship", "ship_class"]
