"""Structures as coded terms: what a name means to programs that read no English.

A DICOM segmentation says of each segment what kind of thing it is (category) and which one (type),
each as a code of a terminology: PS3.3, C.8.20.2 and PS3.16, CID 7150 and 7151.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hymunet.errors import HyMUNetError


@dataclass(frozen=True)
class Code:
    """A concept of a terminology.

    Args:
        value: Its code, such as 10200004.
        scheme: The terminology: SCT (SNOMED CT), DCM, FMA, 99LOCAL, ...
        meaning: In words, such as Liver.
    """

    value: str
    scheme: str
    meaning: str

    def __str__(self) -> str:
        return f"{self.meaning} ({self.scheme} {self.value})"


@dataclass(frozen=True)
class Term:
    """What a segment is.

    Args:
        category: The kind of thing, of CID 7150: a tissue, an anatomical structure, ...
        type: Which one.
        region: Where in the body it lies (Anatomic Region); None: not said.
    """

    category: Code
    type: Code
    region: Code | None = None

    def codes(self) -> tuple[Code, ...]:
        """Its codes that are there."""
        return tuple(code for code in (self.category, self.type, self.region) if code)


TISSUE = Code("85756007", "SCT", "Tissue")
_ANATOMICAL = Code("91723000", "SCT", "Anatomical Structure")
_ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
UNKNOWN = Term(TISSUE, TISSUE)  # as 3D Slicer calls what nobody has named

# the standard's lists of types, as pydicom holds them, and the category that each belongs to
_LISTS = (("CID7192", _ANATOMICAL), ("CID7194", _ABNORMAL), ("CID7191", TISSUE))
# what data sets call it, and DICOM's word for it
_WORDS = {"tumor": "neoplasm", "tumour": "neoplasm", "vessel": "bloodvessel",
          "vessels": "bloodvessel"}  # fmt: skip
_LENGTHS = (("value", 64), ("scheme", 16), ("meaning", 64))


def term_of(name: str, table: Mapping[str, Term]) -> Term | None:
    """What a structure called `name` is: by the user's table, else by DICOM's own lists of
    structures, tissues and lesions, where one has exactly this name; None: nobody says."""
    key = _key(name)
    given = {_key(one): term for one, term in table.items()}
    if key in given:
        return given[key]
    from pydicom.sr.codedict import Collection

    word = _WORDS.get(key, key)
    for listed, category in _LISTS:
        concepts = Collection(listed)
        for keyword in concepts.dir():
            if keyword.lower() == word:
                found = getattr(concepts, keyword)
                return Term(category, Code(found.value, found.scheme_designator, found.meaning))
    return None


def read_terms(path: Path) -> dict[str, Term]:
    """A table of codes: YAML or JSON, for each structure its `type`, each code as [value, scheme,
    meaning]; `category` and `region` beside it where they are wanted.

    Args:
        path: The file, for instance `{"lesion": {"type": ["52988006", "SCT", "Lesion"]}}`. Without
            a category it is that of DICOM's list which has the type, else it is Tissue.

    Raises:
        HyMUNetError: If it cannot be read or holds anything else.
    """
    from yaml import YAMLError

    expected = "expected structures, each with a type such as [10200004, SCT, Liver]"
    try:
        content = _parsed(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise HyMUNetError(f"cannot read the codes in {path}: {error}; {expected}") from error
    if not isinstance(content, dict) or not content:
        raise HyMUNetError(f"{path} holds {content!r:.100}; {expected}")
    terms = {}
    for name, entry in content.items():
        if not isinstance(name, str):
            raise HyMUNetError(f"{path}: {_no_text(name)}")
        parts = entry if isinstance(entry, dict) else {}
        unknown = parts.keys() - {"type", "category", "region"}
        if "type" not in parts or unknown:
            raise HyMUNetError(
                f"{path}: {name} is {entry!r:.100}; expected a type, and beside it nothing but a "
                "category and a region"
            )
        codes = {part: _code(path, f"{name}, {part}", value) for part, value in parts.items()}
        category = codes.get("category") or _category_of(codes["type"])
        terms[name] = Term(category, codes["type"], codes.get("region"))
    return terms


def _parsed(content: str) -> object:
    """YAML or JSON, with the digits of codes as text where YAML has the same number for them: it
    takes 0123 for 83.

    Raises:
        yaml.YAMLError: If it is neither, or two names of a table are the same.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
            seen: dict[str, str] = {}
            for name in (str(key.value) for key, _ in node.value):
                if _key(name) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{seen[_key(name)]} and {name} are the same name, keep one",
                        node.start_mark,
                    )  # fmt: skip
                seen[_key(name)] = name
            return super().construct_mapping(node, deep)

    def whole(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str | int:
        number = loader.construct_yaml_int(node)
        return node.value if str(number) == node.value else number

    Loader.add_constructor("tag:yaml.org,2002:int", whole)
    return yaml.load(content, Loader)


def _no_text(value: object) -> str:
    return f"YAML reads {value!r:.40} where it should read text: write it in quotes"


def _code(path: Path, what: str, value: object) -> Code:
    """One code of the table."""
    parts = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
    for part in parts:
        if not isinstance(part, str | list | dict):
            raise HyMUNetError(f"{path}: {what} is {value!r:.100}: {_no_text(part)}")
    words = [part.strip() for part in parts if isinstance(part, str)]
    fits = len(words) == len(parts) == 3 and all(
        0 < len(word) <= longest and "\\" not in word and word.isprintable()
        for word, (_, longest) in zip(words, _LENGTHS, strict=True)
    )
    if not fits:
        longest = ", ".join(f"{name} up to {length}" for name, length in _LENGTHS)
        raise HyMUNetError(
            f"{path}: {what} is {value!r:.100}; expected [value, scheme, meaning], {longest} "
            "characters, such as [10200004, SCT, Liver]"
        )
    return Code(*words)


def _category_of(kind: Code) -> Code:
    from pydicom.sr.codedict import Collection
    from pydicom.sr.coding import Code as Concept

    wanted = Concept(kind.value, kind.scheme, kind.meaning)
    return next((category for name, category in _LISTS if wanted in Collection(name)), TISSUE)


def _key(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
