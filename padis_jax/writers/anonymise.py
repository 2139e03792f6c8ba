"""Who the patient is goes: the Basic Application Level Confidentiality Profile of DICOM PS3.15 (2026c, table E.1-1).

Listed identifiers become others, the same for the same, so that a series stays one. Every other listed attribute goes,
as do private ones, names, dates and times that are not listed, in sequences too; what an image must have stays, empty.
The new identifiers follow from the old ones: who has the originals can tell which they were.
"""

from __future__ import annotations

from typing import Any

from padis_jax.writers.dicom_header import EMPTY, uid

_NAMES_AND_TIMES = ("PN", "DA", "DT", "TM")
_GRAPHICS = (0x5000, 0x6000)  # curves and overlays: groups that repeat

# GROUP: its elements
_REMOVED = """
 0000: 1000  0008: 0012 0013 0015 0020 0021 0022 0023 0024 0025 002A 0030 0031 0032 0033 0034 0035 0050 0054 0055
 0080 0081 0082 0090 0092 0094 0096 009C 009D 0106 0107 0201 1000 1010 1030 103E 1040 1041 1048 1049 1050 1052 1060
 1062 1070 1072 1080 1084 1088 1110 1111 1120 1140 1301 1302 1303 1304 2111 2112 4000  0010: 0010 0011 0012 0013
 0014 0015 0016 0020 0021 0030 0032 0040 0041 0042 0043 0044 0045 0046 0047 0050 0101 0102 1000 1001 1002 1005 1010
 1020 1030 1040 1050 1060 1080 1081 1090 1100 2000 2110 2150 2152 2154 2155 2160 2161 2162 2180 21A0 21B0 21C0 21D0
 21F0 2203 2297 2299 4000  0012: 0010 0020 0021 0022 0023 0030 0031 0032 0040 0041 0042 0043 0050 0051 0055 0060
 0071 0072 0073 0081 0082 0086 0087  0014: 407C 407E  0016: 002B 004B 004D 004E 004F 0050 0051 0070 0071 0072 0073
 0074 0075 0076 0077 0078 0079 007A 007B 007C 007D 007E 007F 0080 0081 0082 0083 0084 0085 0086 0087 0088 0089 008A
 008B 008C 008D 008E  0018: 0010 0027 0035 1000 1004 1005 1007 1008 1009 100A 1010 1011 1012 1014 1030 1042 1043
 1072 1073 1078 1079 11BB 1200 1201 1202 1203 1204 1205 1400 4000 5011 700A 700C 700E 9074 9151 9185 9367 9369 936A
 9371 9373 937B 937F 9424 9516 9517 9623 9701 9804 9919 9937 A002 A003  0020: 0010 0027 3401 3403 3405 3406 4000
 9158  0028: 4000  0032: 0012 0032 0033 0034 0035 1000 1001 1010 1011 1020 1021 1030 1032 1033 1040 1041 1050 1051
 1060 1066 1067 1070 4000  0034: 0001 0002 0005 0007  0038: 0004 0010 0011 0014 001A 001B 001C 001D 001E 0020 0021
 0030 0032 0040 0050 0060 0061 0062 0064 0300 0400 0500 4000  003A: 0020 0203 020C 0314 0329 032B  0040: 0001 0002
 0003 0004 0005 0006 0007 0009 000B 0010 0011 0012 0241 0242 0243 0244 0245 0250 0251 0253 0254 0275 0280 0310 050A
 0512 0513 051A 0551 0555 0556 0562 0600 0602 0610 06FA 1001 1002 1004 1005 100A 1010 1011 1101 1102 1103 1104 1400
 2001 2004 2005 2008 2009 2010 2011 2016 2017 2400 3001 4005 4008 4010 4011 4025 4027 4028 4030 4034 4035 4036 4037
 4050 4051 4052 A023 A024 A027 A030 A032 A033 A034 A035 A073 A075 A078 A07A A07C A082 A088 A110 A112 A120 A121 A122
 A123 A13A A192 A193 A307 A352 A353 A354 A358 A730 B020 B034 B036 B03B B03F DB06 DB07 E004 E012  0042: 0011  0044:
 0004 000B 0010 0104 0105  0050: 001B 0020 0021  0068: 6226 6270  006A: 0003 0005 0006  0070: 0001 0006 0082 0083
 0084 0086  0072: 000A 005E 005F 0061 0063 0065 0066 0068 006A 006B 006C 006D 006E 0070 0071  0074: 1234 1236  0088:
 0200 0904 0906 0910 0912  0100: 0420  0400: 0105 0115 0310 0402 0403 0404 0550 0551 0552 0561 0562 0563 0564 0565
 0600  2030: 0020  2100: 0040 0050 0070 0140  2200: 0002 0005  3002: 0121 0123  3006: 0002 0004 0006 0008 0009 0026
 0028 002D 002E 0038 004D 004E 0085 0088 00A6  3008: 0024 0025 0054 0056 0105 0162 0164 0166 0168 0250 0251  300A:
 0002 0003 0004 0006 0007 000B 000E 0016 0072 00B2 00C3 00DD 0196 01A6 01B2 0216 022C 022E 02EB 0608 0611 0615 0619
 0623 062A 0676 067C 067D 0734 0736 073A 0741 0742 0760 0783 078E 0792 0794 079A  300C: 0113 0127  300E: 0004 0005
 0008  3010: 000F 0017 001B 002D 0033 0034 0035 0036 0037 0038 0043 004C 004D 0054 0056 005A 005C 0061 0077 007A
 007B 007F 0081 0085  4000: 0010 4000  4008: 0040 0042 0100 0101 0102 0108 0109 010A 010B 010C 0111 0112 0113 0114
 0115 0118 0119 011A 0200 0202 0300 4000  FFFA: FFFA  FFFC: FFFC
"""
_IDENTIFIERS = """
 0000: 1001  0002: 0003  0004: 1511  0008: 0014 0017 0018 0019 0058 1155 1195 3010  0018: 1002 100B 2042  0020: 000D
 000E 0052 0200 9161 9164  0028: 1199 1214  003A: 0310  0040: 0554 4023 A124 A171 A172 A402 DB0C DB0D  0062: 0021
 0064: 0003  0070: 031A 1101 1102  0088: 0140  0400: 0100  3006: 0024 00C2  300A: 0013 0054 0083 0609 0650 0700 0785
 3010: 0006 000B 0013 0015 0031 003B 006E 006F
"""


def _tags(text: str) -> frozenset[int]:
    found, group = set(), ""
    for word in text.split():
        if word.endswith(":"):
            group = word[:-1]
        else:
            found.add(int(group + word, 16))
    return frozenset(found)


REMOVED, IDENTIFIERS = _tags(_REMOVED), _tags(_IDENTIFIERS)


def anonymise(pydicom: Any, header: Any) -> None:
    """Makes the header of an image one of the profile, in place."""
    emptied = [name for name in EMPTY if name in header]
    _clean(header)
    for name in emptied:
        if name not in header:
            setattr(header, name, "")
    header.PatientIdentityRemoved, header.LongitudinalTemporalInformationModified = "YES", "REMOVED"
    header.DeidentificationMethod = "DICOM PS3.15 2026c, table E.1-1, basic profile"
    code = pydicom.Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
    code.CodeMeaning = "Basic Application Confidentiality Profile"
    header.DeidentificationMethodCodeSequence = [code]


def remove_graphics(header: Any) -> None:
    """Curves and overlays: they were drawn on the source."""
    for element in [e.tag for e in header if e.tag.group & 0xFF00 in _GRAPHICS]:
        del header[element]


def _clean(data: Any) -> None:
    remove_graphics(data)
    for element in list(data):
        if element.tag in REMOVED or element.tag.is_private or element.VR in _NAMES_AND_TIMES:
            del data[element.tag]
        elif element.tag in IDENTIFIERS and not element.is_empty:
            old = element.value if element.VM > 1 else [element.value]
            new = [uid(f"{value} anonymous") for value in old]
            element.value = new if element.VM > 1 else new[0]
        elif element.VR == "SQ":
            for item in element.value:
                _clean(item)
