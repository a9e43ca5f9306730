"""The embedded corpus: a small English-German grammar with several valid translations of every sentence.

A non-autoregressive model suffers where one source has many translations: here are many, and all are known. In `demo`
a model of frames that marginalises over alignments can be right nearly always, while a model of positions must blend;
`hard` adds choices that no such model can make alone.

| phenomenon | difficulty | example |
|---|---|---|
| synonyms of one gender and inflection | demo | the horse: das Pferd, das Ross |
| wordings of different length, which shift the rest | demo | today: heute, am heutigen Tag |
| verb second after an opening | demo | Today the king reads …: Heute liest der König … |
| verb-final clauses | demo | I know that the king reads the book: …, dass der König das Buch liest. |
| infinitives at the end | demo | can read the book: kann das Buch lesen; …, dass … das Buch lesen kann |
| synonyms of different gender, with agreement | hard | my old car: mein altes Auto, mein alter Wagen |
| weak nouns and verbs with the dative | hard | helps the neighbour: hilft dem Nachbarn, unterstützt die Nachbarin |
| separable verbs | hard | opens the door: öffnet die Tür, macht die Tür auf |
| preterite and perfect | hard | ate the apple: aß den Apfel, hat den Apfel gegessen |
| free order of subject, time and place | hard | Gestern las der König im Garten …, Im Garten las der König gestern … |
| clause order; verb-final and verb-second reasons | hard | …, weil es regnet. …, denn es regnet. Weil es regnet, … |
"""

import random
import re
import zlib
from bisect import bisect
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import accumulate
from typing import Literal, NamedTuple, get_args

from natjax.data.lexicon import CASES, DEMO, DETERMINERS, HARD, VERY, Lexicon, Variants
from natjax.errors import DataError

GRAMMAR_VERSION = 1

Difficulty = Literal["demo", "hard"]
Split = Literal["train", "valid", "test"]

_LEXICONS: dict[str, Lexicon] = {"demo": DEMO, "hard": HARD}
_HELD_OUT = {0: "test", 1: "test", 2: "valid"}
_PRETERITE_SHARE = _REASON_LAST_SHARE = 0.55
_MAX_MISSES = 20_000


class Example(NamedTuple):
    """One sentence pair. `target` is one of `references`, drawn by the grammar's probabilities."""

    source: str
    target: str
    references: tuple[str, ...]


def generate(difficulty: Difficulty, split: Split, count: int, seed: int = 0) -> list[Example]:
    """Draws sentence pairs, the same on every platform; a smaller count gives a prefix of a larger one.

    All sources are distinct. Which split a sentence belongs to is decided by its (subject, verb, object) alone, so
    splits are disjoint for every seed and count, and held-out sentences hold combinations never seen in training.

    Args:
        difficulty: "demo" or "hard".
        split: "train", "valid" or "test".
        count: Number of examples.
        seed: Any integer; other seeds give other sentences of the same split.

    Raises:
        DataError: Unknown difficulty or split, a negative count, or more sentences than the split has.
    """
    grammar = _grammar(difficulty)
    if split not in get_args(Split):
        raise DataError(f"unknown split {split!r} of the embedded corpus: use one of {', '.join(get_args(Split))}")
    if count < 0:
        raise DataError(f"cannot draw {count} sentences from the embedded corpus: ask for 0 or more")
    # random() after an integer seed is the one stream that Python promises to keep over its versions.
    rng = random.Random(zlib.crc32(f"{difficulty} {split} {seed}".encode()))
    examples: dict[str, Example] = {}
    misses = 0
    while len(examples) < count:
        meaning = grammar.draw(rng, split)
        source = _english(meaning) if meaning else ""
        variants = grammar.german(meaning) if meaning and source not in examples else {}
        misses = 0 if variants else misses + 1
        if variants:
            examples[source] = Example(source, _pick_weighted(rng, variants), tuple(variants))
        elif misses > _MAX_MISSES:
            raise DataError(
                f"no {count} sentences in the {split} split of {difficulty}: ask for {len(examples)} or fewer"
            )
    return list(examples.values())


def references(difficulty: Difficulty, source: str) -> tuple[str, ...]:
    """All translations of a source that the grammar has, the most probable first.

    Args:
        difficulty: "demo" or "hard".
        source: An English sentence of the grammar; runs of whitespace count as one space.

    Raises:
        DataError: Unknown difficulty, or a sentence that the grammar does not produce.
    """
    return tuple(weighted_references(difficulty, source))


def weighted_references(difficulty: Difficulty, source: str) -> dict[str, float]:
    """As `references`, each with the probability with which `generate` draws it; they sum to one."""
    grammar = _grammar(difficulty)
    meaning = grammar.parse(" ".join(source.split()))
    variants = grammar.german(meaning) if meaning else {}
    if not variants:
        raise DataError(f"not a sentence of the {difficulty} grammar: {source!r}; use sources that `generate` gives")
    return variants


def exactly_valid(difficulty: Difficulty, source: str, hypothesis: str) -> bool:
    """Whether the hypothesis is one of the source's references, runs of whitespace counting as one space.

    Raises:
        DataError: Unknown difficulty, or a source that the grammar does not produce.
    """
    return " ".join(hypothesis.split()) in weighted_references(difficulty, source)


class _Meaning(NamedTuple):
    """What a sentence says: English phrases in English order, "" where a slot is empty."""

    opening: str
    determiner: str
    very: str
    quality: str
    subject: str
    often: str
    predicate: str
    recipient: str
    article: str
    trait: str
    object: str
    place: str
    time: str
    conjunction: str
    reason: str


class _Predicate(NamedTuple):
    """One German wording: the finite verb and what ends a main clause, both together in final place, object's case."""

    share: float
    finite: str
    end: str
    final: str
    case: str


def _split_of(subject: str, verb: str, thing: str) -> str:
    """A tenth of all combinations is for testing, a twentieth for validation, whatever the seed."""
    return _HELD_OUT.get(zlib.crc32(f"{subject} {verb} {thing}".encode()) % 20, "train")


def _pick(rng: random.Random, options: Sequence[str]) -> str:
    return options[int(rng.random() * len(options))]


def _pick_weighted(rng: random.Random, shares: Variants) -> str:
    sums = list(accumulate(shares.values()))
    return list(shares)[bisect(sums, rng.random() * sums[-1])]


def _maybe(rng: random.Random, share: float, options: Sequence[str]) -> str:
    return _pick(rng, options) if rng.random() < share and options else ""


def _english(meaning: _Meaning) -> str:
    text = re.sub(r"\ba (?=[aeiou])", "an ", " ".join(filter(None, meaning)))
    return f"{text[0].upper()}{text[1:]}."


def _join(parts: Iterable[Variants]) -> Variants:
    """All ways to say the parts one after the other, each word with a space before it; empty parts are skipped."""
    whole, fixed = [("", 1.0)], ""
    # Most parts have one wording only: it is glued to the next choice, so that the long product stays short.
    for part in filter(None, parts):
        if len(part) == 1:
            fixed += next(iter(part))
        else:
            choice = [(fixed + text, p) for text, p in part.items()]
            whole, fixed = [(head + tail, p * q) for head, p in whole for tail, q in choice], ""
    return {text + fixed: p for text, p in whole} if fixed else dict(whole)


def _one(text: str) -> Variants:
    return {f" {text}": 1.0} if text else {}


def _mix(mixture: Iterable[tuple[float, Variants]]) -> Variants:
    """One of several sets of variants, each with its share; no text is in two of them."""
    return {text: share * p for share, variants in mixture for text, p in variants.items()}


class _Grammar:
    """One difficulty: draws meanings, reads them from English, says them in German."""

    def __init__(self, lexicon: Lexicon):
        self.lexicon = lexicon
        nouns, traits = lexicon.nouns, lexicon.adjectives.items()
        self.objects = {key: [w for w in nouns if nouns[w].kind in verb.kinds] for key, verb in lexicon.verbs.items()}
        self.articles = {w: [d for d in lexicon.determiners if d not in n.unsuited] for w, n in nouns.items()}
        self.traits = {w: [q for q, a in traits if n.kind in a.kinds and q not in n.unsuited] for w, n in nouns.items()}
        # English predicate -> English verb, tense, modal.
        self.predicates: dict[str, tuple[str, str, str]] = {}
        for key, verb in lexicon.verbs.items():
            self.predicates[verb.present] = (key, "present", "")
            self.predicates |= {f"{modal} {key}": (key, "modal", modal) for modal in lexicon.modals}
            self.predicates |= {verb.past: (key, "past", "")} if "past" in lexicon.tenses else {}
        times = {word: time.german for word, time in (lexicon.times | lexicon.often).items()}
        phrases = lexicon.matrices | lexicon.adverbs | lexicon.places | lexicon.recipients | times | {"very": VERY}
        self.phrases = {word: {f" {text}": p for text, p in german.items()} for word, german in phrases.items()}
        self.shifting = {word for word, german in phrases.items() if len({text.count(" ") for text in german}) > 1}
        self.noun_phrases: dict[tuple[str, ...], Variants] = {}
        # Slot -> its English phrases, in English order.
        self.words: dict[str, Sequence[str]] = {
            "opening": [*lexicon.matrices, *lexicon.adverbs, *(lexicon.times if "time" in lexicon.openings else [])],
            "determiner": lexicon.determiners,
            "very": ["very"],
            "quality": list(lexicon.adjectives),
            "subject": [word for word, noun in nouns.items() if noun.kind == "person"],
            "often": list(lexicon.often),
            "predicate": list(self.predicates),
            "recipient": list(lexicon.recipients),
            "article": lexicon.determiners,
            "trait": list(lexicon.adjectives),
            "object": list(nouns),
            "place": list(lexicon.places),
            "time": list(lexicon.times),
            "conjunction": list(lexicon.conjunctions),
            "reason": list(lexicon.reasons),
        }
        needed = {"determiner", "subject", "predicate", "article", "object"}
        marks = {slot: "" if slot in needed else "?" for slot, words in self.words.items() if words}
        groups = (f"(?:(?P<{slot}>{'|'.join(self.words[slot])}) ){mark}" for slot, mark in marks.items())
        self.pattern = re.compile("".join(groups))

    def parse(self, source: str) -> _Meaning | None:
        """The meaning of an English sentence, or None where the grammar does not produce it."""
        plain = source.removesuffix(".") + " "
        # "I" keeps its capital inside a sentence, so both are tried.
        for text in (plain, plain[0].lower() + plain[1:]):
            if found := self.pattern.fullmatch(re.sub(r"\ban ", "a ", text)):
                words = found.groupdict()
                meaning = _Meaning(*(words.get(slot) or "" for slot in _Meaning._fields))
                return meaning if _english(meaning) == source and self.is_sensible(meaning) else None
        return None

    def draw(self, rng: random.Random, split: str) -> _Meaning | None:
        """A random meaning of the split, or None where the dice fell outside of it."""
        lexicon, words = self.lexicon, self.words
        subject, key = _pick(rng, words["subject"]), _pick(rng, list(lexicon.verbs))
        verb, thing = lexicon.verbs[key], _pick(rng, self.objects[key])
        if _split_of(subject, key, thing) != split:
            return None
        tense, opens_with = _pick_weighted(rng, lexicon.tenses), _pick_weighted(rng, lexicon.openings)
        times = [word for word, time in lexicon.times.items() if tense in time.tenses]
        places = [word for word in words["place"] if word in verb.places and word not in lexicon.nouns[thing].unsuited]
        openings = {"matrix": [*lexicon.matrices], "adverb": [*lexicon.adverbs], "time": times, "": [""]}
        predicates = {"present": verb.present, "past": verb.past, "modal": f"{_pick(rng, list(lexicon.modals))} {key}"}
        share = lexicon.slots if opens_with != "time" else lexicon.slots | {"often": 0, "time": 0}
        quality = _maybe(rng, share["quality"], self.traits[subject])
        often = _maybe(rng, share["often"], words["often"] if verb.repeatable and tense != "modal" else [])
        conjunction = _maybe(rng, 0 if opens_with else 0.5, words["conjunction"])
        reasons = [reason for reason in words["reason"] if lexicon.reasons[reason].past == (tense == "past")]
        meaning = _Meaning(
            opening=_pick(rng, openings[opens_with]),
            determiner=_pick(rng, self.articles[subject]),
            very=_maybe(rng, share["very"] if quality else 0, words["very"]),
            quality=quality,
            subject=subject,
            often=often,
            predicate=predicates[tense],
            recipient=_maybe(rng, verb.recipient, words["recipient"]),
            article=_pick(rng, self.articles[thing]),
            trait=_maybe(rng, share["trait"], self.traits[thing]),
            object=thing,
            place=_maybe(rng, share["place"], places),
            time=_maybe(rng, 0 if often else share["time"], times),
            conjunction=conjunction,
            reason=_maybe(rng, bool(conjunction), reasons),
        )
        return meaning if self.is_sensible(meaning) else None

    def is_sensible(self, meaning: _Meaning) -> bool:
        """Whether the words go together: asked of sentences drawn and of sentences read, so both know the same ones."""
        lexicon, m = self.lexicon, meaning
        key, tense, _ = self.predicates[m.predicate]
        verb, thing = lexicon.verbs[key], lexicon.nouns[m.object]
        times = [lexicon.times[word] for word in (m.opening, m.time) if word in lexicon.times]
        times += [lexicon.often[m.often]] if m.often else []
        past_reason = m.reason != "" and lexicon.reasons[m.reason].past
        return (
            thing.kind in verb.kinds
            and len({f"the {m.subject}", f"the {m.object}", m.recipient}) == 3
            and m.determiner in self.articles[m.subject]
            and m.article in self.articles[m.object]
            and m.place in ("", *(verb.places - thing.unsuited))
            and m.quality in ("", *self.traits[m.subject])
            and m.trait in ("", *self.traits[m.object])
            and (m.quality != "" or not m.very)
            and bool(m.recipient) == verb.recipient
            and len(times) <= 1
            and all(tense in time.tenses and (time.when or m.conjunction != "when") for time in times)
            # After "often" in the past "when" would be "wenn" and not "als".
            and (not m.often or (verb.repeatable and not past_reason))
            and bool(m.conjunction) == bool(m.reason)
            and (not m.reason or (not m.opening and past_reason == (tense == "past")))
            and sum(word in self.shifting for word in m) >= lexicon.min_offsets
        )

    def german(self, meaning: _Meaning) -> Variants:
        """All translations, the most probable first; none where they would be more or longer than the bounds allow."""
        lexicon = self.lexicon
        if meaning.conjunction:
            texts = self._with_reason(meaning)
        elif meaning.opening in lexicon.matrices:
            texts = _join([self.phrases[meaning.opening], self._clause(meaning, lexicon.final_orders)])
        elif meaning.opening:
            texts = self._clause(meaning, {f"a{order}": share for order, share in lexicon.inverted_orders.items()})
        else:
            texts = self._clause(meaning, lexicon.main_orders)
        if len(texts) > lexicon.max_references or max(text.count(" ") for text in texts) > lexicon.max_words:
            return {}
        return {f"{text[1].upper()}{text[2:]}.": texts[text] for text in sorted(texts, key=texts.get, reverse=True)}

    def _with_reason(self, meaning: _Meaning) -> Variants:
        """Main and subordinate clause in both orders; "denn" comes last and keeps its verb second."""
        lexicon, reason = self.lexicon, self.lexicon.reasons[meaning.reason]
        main = self._clause(meaning, lexicon.main_orders)
        inverted = self._clause(meaning, lexicon.inverted_orders)
        mixture = []
        for share, present, past, is_second in lexicon.conjunctions[meaning.conjunction]:
            last = (reason.verb, reason.complement) if is_second else (reason.complement, reason.verb)
            clause = " ".join(filter(None, (past if reason.past else present, reason.subject, *last)))
            last_share = 1.0 if is_second else _REASON_LAST_SHARE
            mixture.append((share * last_share, _join([main, {f", {clause}": 1.0}])))
            if not is_second:
                mixture.append((share * (1 - last_share), _join([_one(f"{clause},"), inverted])))
        return _mix(mixture)

    def _clause(self, meaning: _Meaning, orders: Variants) -> Variants:
        """The clause in all wordings of its predicate and all orders that begin with something that is there."""
        m = meaning
        slots = {"a": m.opening, "t": m.time or m.often, "p": m.place, "r": m.recipient}
        parts = {letter: self.phrases.get(phrase, {}) for letter, phrase in slots.items()}
        parts["s"] = self._noun_phrase(m.determiner, m.very, m.quality, m.subject, "nominative")
        possible: Variants = {}
        for order, share in orders.items():
            if parts.get(order[0], True):
                filled = "".join(letter for letter in order if parts.get(letter, True))
                possible[filled] = possible.get(filled, 0.0) + share
        mass = sum(possible.values())
        mixture = []
        for predicate in self._predicates(m.predicate):
            parts["o"] = self._noun_phrase(m.article, "", m.trait, m.object, predicate.case)
            parts |= {"V": _one(predicate.finite), "E": _one(predicate.end), "F": _one(predicate.final)}
            for order, share in possible.items():
                mixture.append((predicate.share * share / mass, _join(map(parts.get, order))))
        return _mix(mixture)

    def _predicates(self, phrase: str) -> Iterable[_Predicate]:
        key, tense, modal = self.predicates[phrase]
        for verb in self.lexicon.verbs[key].forms:
            if tense == "modal":
                finite = self.lexicon.modals[modal]
                yield _Predicate(verb.share, finite, verb.infinitive, f"{verb.infinitive} {finite}", verb.case)
            elif tense == "present":
                yield _Predicate(verb.share, verb.present, verb.prefix, verb.prefix + verb.present, verb.case)
            else:
                share, final = _PRETERITE_SHARE * verb.share, verb.prefix + verb.preterite
                yield _Predicate(share, verb.preterite, verb.prefix, final, verb.case)
                yield _Predicate(verb.share - share, "hat", verb.participle, f"{verb.participle} hat", verb.case)

    def _noun_phrase(self, determiner: str, very: str, quality: str, noun: str, case: str) -> Variants:
        """Determiner, adjective and noun in agreement. Kept: there are few, and each serves many sentences."""
        key = (determiner, very, quality, noun, case)
        if key in self.noun_phrases:
            return self.noun_phrases[key]
        articles, endings = DETERMINERS[determiner]
        stems = self.lexicon.adjectives[quality].stems if quality else {}
        column = CASES.index(case)
        mixture = []
        for share, gender, nominative, oblique in self.lexicon.nouns[noun].forms:
            adjective = {f" {stem}{endings[gender][column]}": p for stem, p in stems.items()}
            name = nominative if case == "nominative" else oblique
            parts = _one(articles[gender][column]), self.phrases["very"] if very else {}, adjective, _one(name)
            mixture.append((share, _join(parts)))
        self.noun_phrases[key] = _mix(mixture)
        return self.noun_phrases[key]


@cache
def _grammar(difficulty: str) -> _Grammar:
    if difficulty not in _LEXICONS:
        raise DataError(f"unknown difficulty {difficulty!r} of the embedded corpus: use one of {', '.join(_LEXICONS)}")
    return _Grammar(_LEXICONS[difficulty])
