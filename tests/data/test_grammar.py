"""The embedded corpus against tables and a parser of its own: nothing here reads the grammar's tables."""

import hashlib
import math
import os
import random
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from itertools import combinations, product
from pathlib import Path
from statistics import median

import pytest

from natjax.data import grammar
from natjax.data.grammar import Example, exactly_valid, generate, references, weighted_references
from natjax.errors import DataError

CHECKSUMS = {
    "demo": "bc55eeed347b3d93c4fb8e2f6d66b5d60c49c8cab37e4616842fff58c322470e",
    "hard": "87884e7b07d3e98740d4a8bb37d44cb39a6d1723d4c16dafee66aff7ee69f0c0",
}


def table(text: str) -> list[str]:
    return text.replace("\n", "|").split("|")


# German nouns by gender, and the weak ones: nominative, other cases.
GENDERS = {
    "m": """Landwirt|Arzt|Mann|König|Lehrer|Hund|Brief|Apfel|Stuhl|Wagen|Kahn|Beutel""",
    "f": """Frau|Großmutter|Oma|Lehrerin|Nachbarin|Studentin|Katze|Kuh|Zeitung|Semmel|Uhr|Couch|Tasche|Tür""",
    "n": """Mädchen|Kind|Pferd|Ross|Haus|Bild|Gemälde|Buch|Schreiben|Brot|Brötchen|Auto|Boot|Sofa|Fenster""",
}
WEAK = {"Bauer": "Bauern", "Junge": "Jungen", "Bub": "Buben", "Nachbar": "Nachbarn", "Student": "Studenten"}
FORMS = {noun: (gender, {"nom", "acc", "dat"}) for gender, nouns in GENDERS.items() for noun in table(nouns)}
FORMS |= {noun: ("m", {"nom"}) for noun in WEAK} | {noun: ("m", {"acc", "dat"}) for noun in WEAK.values()}
# Gender, case, definite article, indefinite article, weak ending, mixed ending: as a school book has them.
DECLENSION = """m nom der ein e er|m acc den einen en en|m dat dem einem en en
f nom die eine e e|f acc die eine e e|f dat der einer en en
n nom das ein e es|n acc das ein e es|n dat dem einem en en"""
AGREEMENT = {tuple(row.split()[:2]): row.split()[2:] for row in table(DECLENSION)}
ARTICLES = {form for row in AGREEMENT.values() for form in (row[0], row[1], "m" + row[1])}
STEMS = """alt|jung|freundlich|nett|klug|reich|müd|klein|groß|neu|schön|hübsch|teur|kostspielig|frisch|lang
kaputt|defekt|seltsam|merkwürdig"""
ADVERBIALS = """ganz besonders|sehr|am heutigen Tag|heute|in diesem Moment|jetzt|in kurzer Zeit|bald|am morgigen Tag
morgen|am Abend|abends|gestern|am gestrigen Tag|letzte Woche|in der letzten Woche|an diesem Ort|hier|an jenem Ort|dort
auf dem Markt|im Garten|zu Hause|daheim|immer wieder|oft|allem Anschein nach|offenbar|in der Tat|tatsächlich
ohne jeden Zweifel|zweifellos|zum Glück|glücklicherweise"""
MATRICES = """ich weiß, dass|es ist mir bekannt, dass|ich bin der Meinung, dass|ich glaube, dass
es entzieht sich meiner Kenntnis, ob|ich weiß nicht, ob"""
# Finite forms (present, preterite), infinitive, participle; separable ones with the prefix last.
VERBS = """verkauft verkaufte verkaufen verkauft|kauft kaufte kaufen gekauft|erwirbt erwarb erwerben erworben
sieht sah sehen gesehen|erblickt erblickte erblicken erblickt|findet fand finden gefunden
entdeckt entdeckte entdecken entdeckt|sucht suchte suchen gesucht|isst aß essen gegessen
verspeist verspeiste verspeisen verspeist|liest las lesen gelesen|reinigt reinigte reinigen gereinigt
säubert säuberte säubern gesäubert|füttert fütterte füttern gefüttert|repariert reparierte reparieren repariert
betrachtet betrachtete betrachten betrachtet|sieht sah ansehen angesehen an|öffnet öffnete öffnen geöffnet
macht machte aufmachen aufgemacht auf|lädt lud einladen eingeladen ein|hilft half helfen geholfen
unterstützt unterstützte unterstützen unterstützt|zeigt zeigte zeigen gezeigt"""
ROWS = [row.split() for row in table(VERBS)]
SUBORDINATORS = {"dass", "ob", "weil", "obwohl", "obgleich", "wenn", "als"}
REASONS = """es regnet|es regnete|es spät ist|es spät war|es kalt ist|es kalt war|die Sonne scheint|die Sonne schien
das Wetter schön ist|das Wetter schön war|die Gäste kommen|die Gäste kamen|die Musik spielt|die Musik spielte"""
REASONS_FINAL = table(REASONS)
REASONS_SECOND = table(re.sub(r"(spät|kalt|schön) (ist|war)", r"\2 \1", REASONS))
ADVERBIAL_NOUNS = """Tag|Moment|Zeit|Abend|Woche|Ort|Markt|Garten|Hause|Anschein|Tat|Zweifel|Glück|Meinung|Kenntnis
Sonne|Wetter|Gäste|Musik"""

ENGLISH_NOUNS = """farmer|doctor|man|king|boy|woman|grandmother|girl|child|teacher|neighbour|student|horse|dog|cat|cow
house|picture|book|newspaper|letter|apple|bread|roll|clock|chair|car|boat|sofa|bag|door|window"""
ENGLISH_VERBS = r"""sells?|sold;buys?|bought;sees?|saw;finds?|found;looks? for|looked for;eats?|ate;reads?
cleans?|cleaned;feeds?|fed;repairs?|repaired;looks? at|looked at;opens?|opened;invites?|invited
helps?|helped;shows?|showed"""


@pytest.fixture(params=["demo", "hard"])
def difficulty(request) -> str:
    return request.param


@cache
def training(difficulty: str) -> list[Example]:
    return generate(difficulty, "train", {"demo": 20_000, "hard": 30_000}[difficulty])


@cache
def sample(difficulty: str, split: str = "train", seed: int = 0) -> list[Example]:
    return generate(difficulty, split, 1000, seed=seed)


def checksum(difficulty: str) -> str:
    examples = [e for split in ("train", "valid", "test") for e in generate(difficulty, split, 300, seed=7)]
    text = "\n".join("\t".join((e.source, e.target, *e.references)) for e in examples)
    return hashlib.sha256(text.encode()).hexdigest()


def phrases_of(clause: str) -> tuple[list[str], list[str]]:
    """A clause as the kinds of its parts (N noun phrase, + adverbial, or a verb word) and its noun phrases."""
    for phrase in sorted(table(ADVERBIALS), key=len, reverse=True):
        clause = re.sub(rf"\b{phrase}\b", "+", clause)
    tokens, kinds, nouns = clause.split(), [], []
    while tokens:
        if tokens[0] in ARTICLES and len(tokens) > 1:  # else the prefix of "lädt ... ein"
            end = next((i for i, token in enumerate(tokens) if token in FORMS), None)
            assert end is not None, clause
            nouns.append(" ".join(tokens[: end + 1]))
            kinds.append("N")
            tokens = tokens[end + 1 :]
        else:
            kinds.append(tokens.pop(0))
    return kinds, nouns


def check_noun_phrase(phrase: str, case: str) -> None:
    article, *adjectives, noun = phrase.split()
    adjectives = [word for word in adjectives if word != "+"]  # "very"
    gender, cases = FORMS[noun]
    assert case in cases and len(adjectives) <= 1, (phrase, case)
    definite, indefinite, weak, mixed = AGREEMENT[gender, case]
    assert article in (definite, indefinite, "m" + indefinite), (phrase, case)
    for adjective in adjectives:
        ending = weak if article == definite else mixed
        assert adjective.endswith(ending) and adjective.removesuffix(ending) in table(STEMS), (phrase, case)


def check_cases(verb_words: list[str], nouns: list[str]) -> None:
    """The subject comes first in all our orders, then who receives, then the object."""
    expected = ["nom", "dat" if {"hilft", "half", "helfen", "geholfen"} & set(verb_words) else "acc"]
    if {"zeigt", "zeigte", "zeigen", "gezeigt"} & set(verb_words):
        expected = ["nom", "dat", "acc"]
    assert len(nouns) == len(expected), (verb_words, nouns)
    for phrase, case in zip(nouns, expected, strict=True):
        check_noun_phrase(phrase, case)


def check_verbs(finite: str, end: list[str]) -> None:
    """What may stand at the end of a main clause with this finite verb."""
    allowed = [[row[4]] if len(row) == 5 else [] for row in ROWS if finite in row[:2]]
    if finite in ("will", "kann", "muss", "wird"):
        allowed = [[row[2]] for row in ROWS]
    elif finite == "hat":
        allowed = [[row[3]] for row in ROWS]
    assert end in allowed, (finite, end)


def check_main(clause: str, position: int) -> None:
    """One clause with its finite verb in the given place (0 after a subordinate clause, else 1)."""
    kinds, nouns = phrases_of(clause)
    middle = {"N", "+"}
    assert len(kinds) > position and all(kind in middle for kind in kinds[:position]), clause
    finite, rest = kinds[position], kinds[position + 1 :]
    end = [kind for kind in rest if kind not in middle]
    assert rest == [kind for kind in rest if kind in middle] + end, clause
    check_verbs(finite, end)
    check_cases([finite, *end], nouns)


def check_final(clause: str) -> None:
    """One clause with all its verbs at the end, the finite one last and with its prefix."""
    kinds, nouns = phrases_of(clause)
    verbs = [kind for kind in kinds if kind not in ("N", "+")]
    assert kinds[-len(verbs) :] == verbs, clause
    if len(verbs) == 1:
        assert verbs[0] in {(row[4] if len(row) == 5 else "") + form for row in ROWS for form in row[:2]}, clause
    else:
        check_verbs(verbs[-1], verbs[:-1])
    check_cases(verbs, nouns)


def check_german(sentence: str) -> None:
    assert re.fullmatch(r"[A-ZÄÖÜ][^.]*[^., ]\.", sentence) and "  " not in sentence and " ," not in sentence, sentence
    words = re.findall(r"\w+", sentence)
    for word in words[1:]:
        assert word[0].isupper() == (word in FORMS or word in table(ADVERBIAL_NOUNS)), (word, sentence)
    text = sentence[0].lower() + sentence[1:-1]
    matrix = next((matrix for matrix in table(MATRICES) if text.startswith(matrix + " ")), None)
    first, *more = text.split(", ")
    conjunction, _, reason = (more[0] if more else "").partition(" ")
    if matrix:
        check_final(text.removeprefix(matrix + " "))
    elif first.split()[0] in SUBORDINATORS:
        assert first.partition(" ")[2] in REASONS_FINAL and len(more) == 1, sentence
        check_main(more[0], position=0)
    else:
        check_main(first, position=1)
        known = {"denn": REASONS_SECOND, "dass": [], "ob": []}.get(conjunction, REASONS_FINAL)
        assert not more or (len(more) == 1 and conjunction in {"denn", *SUBORDINATORS} and reason in known), sentence


def triple(source: str) -> tuple[str, str, str]:
    """Subject, verb and object of an English sentence, found by their words alone."""
    main = re.split(r" (?:because|although|when) ", source.lower())[0]
    nouns = re.findall(rf"\b({'|'.join(table(ENGLISH_NOUNS))})\b", main)
    [verb] = [verb for verb in re.split("[;\n]", ENGLISH_VERBS) if re.search(rf"\b({verb})\b", main)]
    return nouns[0], verb, nouns[-1]


def test_every_reference_is_correct_german(difficulty):
    texts = [reference for example in sample(difficulty)[:500] for reference in example.references]
    assert len(texts) > 5000
    for text in texts:
        check_german(text)


WRONG_GERMAN = """Heute der Bauer verkauft das Pferd.|Ich weiß, dass der Bauer verkauft das Pferd.
Ich weiß, dass der Bauer das Pferd will verkaufen.|Der alter Bauer verkauft das Pferd.|Der Bauer verkauft der Hund.
Der Bauer hilft den Jungen.|Der Bauer sucht einen Nachbar.|Der Bauer lädt den Hund.|Der Bauer hat den Hund verkaufen.
Der bauer verkauft den Hund.|Der Bauer verkauft den Hund , weil es regnet.
Der Bauer verkauft den Hund, denn es spät ist.|Weil es regnet, der Bauer verkauft den Hund."""


@pytest.mark.parametrize("wrong", table(WRONG_GERMAN))
def test_the_checker_of_german_finds_mistakes(wrong):
    with pytest.raises(AssertionError):
        check_german(wrong)


def test_english_is_well_formed(difficulty):
    for source, _, _ in sample(difficulty):
        assert re.fullmatch(r"[A-Z][A-Za-z ]*[a-z]\.", source) and "  " not in source
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", source), source
        assert not re.search(r"\b(a|an) bread[ .](?!roll)", source), source


def test_splits_are_disjoint_for_every_seed_and_hold_new_combinations(difficulty):
    splits = ("train", "valid", "test")
    seen = {split: [e.source for seed in range(3) for e in sample(difficulty, split, seed)] for split in splits}
    triples = {split: {triple(source) for source in sources} for split, sources in seen.items()}
    for one, other in combinations(splits, 2):
        assert not set(seen[one]) & set(seen[other])
        assert not triples[one] & triples[other]
    assert len(triples["test"]) >= 30 and len(triples["valid"]) >= 12


def words_of(example: Example) -> set[str]:
    return set(re.findall(r"\w+", f"{example.source} {example.target}".lower()))


def test_every_held_out_word_is_common_in_training(difficulty):
    seen = Counter(word for e in training(difficulty) for word in words_of(e))
    for split in ("valid", "test"):
        rarest = min((seen[word], word) for e in sample(difficulty, split) for word in words_of(e))
        assert rarest >= (10, ""), rarest


@pytest.mark.parametrize(("difficulty", "most", "low", "high"), [("demo", 64, 8, 24), ("hard", 128, 16, 64)])
def test_number_and_length_of_references(difficulty, most, low, high):
    counts = [len(set(e.references)) for e in sample(difficulty)]
    assert max(counts) <= most and low <= median(counts) <= high
    assert counts == [len(e.references) for e in sample(difficulty)]
    assert difficulty == "hard" or min(counts) >= 4
    # CTC with two frames a source word must be able to say every reference.
    assert all(len(r.split()) <= 2 * len(e.source.split()) for e in sample(difficulty) for r in e.references)


def test_large_sets_are_distinct_and_the_vocabulary_is_small(difficulty):
    examples, words = training(difficulty), {"demo": 160, "hard": 380}[difficulty]
    assert len({e.source for e in examples}) == len(examples) >= 20_000
    assert len({word for e in examples for word in re.findall(r"\w+", e.target)}) <= words


def test_references_of_a_source_are_those_it_was_drawn_with(difficulty):
    for source, target, given in sample(difficulty, "test"):
        assert references(difficulty, source) == given and target in given
        weights = weighted_references(difficulty, source)
        assert math.isclose(sum(weights.values()), 1.0, rel_tol=1e-9)
        assert list(weights.values()) == sorted(weights.values(), reverse=True)


def test_all_translations_of_one_sentence_by_hand():
    everything = []
    for s in ("der Bauer", "der Landwirt"):
        for t in ("gestern", "am gestrigen Tag"):
            for one in ("aß", "verspeiste"):
                everything += [f"{s} {one} {t} das Brot", f"{t} {one} {s} das Brot"]
            for two in ("gegessen", "verspeist"):
                everything += [f"{s} hat {t} das Brot {two}", f"{t} hat {s} das Brot {two}"]
    expected = {f"{text[0].upper()}{text[1:]}." for text in everything}
    assert set(references("hard", "The farmer ate the bread yesterday.")) == expected and len(expected) == 32
    choices = product(("Am heutigen Tag", "Heute"), ("ganz besonders", "sehr"), ("an diesem Ort", "hier"))
    texts = [f"{time} kann der {very} kluge König {place} das Brot" for time, very, place in choices]
    expected = {f"{text} {verb}." for text in texts for verb in ("essen", "verspeisen")}
    found = references("demo", "Today the very clever king can eat the bread here.")
    assert (
        set(found) == expected
        and found[0] == "Am heutigen Tag kann der ganz besonders kluge König an diesem Ort das Brot essen."
    )


@pytest.mark.parametrize(
    ("difficulty", "english", "german", "share"),
    [
        ("demo", r"\btoday\b", r"\bheutigen\b", 0.6),
        ("demo", r"\bI know\b", r"\bIch weiß\b", 0.4),
        ("demo", r"\bfarmer\b", r"\bBauer\b", 0.65),
        ("demo", r"\bhorse\b", r"\bRoss\b", 0.35),
        ("demo", r"\bvery\b", r"\bsehr\b", 0.4),
        ("demo", r"\bexpensive\b", r"\bkostspielig", 0.35),
        ("hard", r"\b(sold|fed|repaired|bought)\b", r"\bhat\b", 0.45),
        ("hard", r"\bcar\b", r"\bAuto\b", 0.55),
        ("hard", r" because ", r", denn ", 0.45),
        ("hard", r" when ", r"^(Wenn|Als) ", 0.45),
        ("hard", r"\b(helps?|helped)\b", r"\b(hilft|half|helfen|geholfen)\b", 0.55),
    ],
)
def test_draws_follow_the_weights(difficulty, english, german, share):
    targets = [e.target for e in training(difficulty) if re.search(english, e.source)]
    hits = sum(re.search(german, target) is not None for target in targets)
    chi_square = (hits - share * len(targets)) ** 2 / (len(targets) * share * (1 - share))
    assert len(targets) > 150 and chi_square < 10.8  # one degree of freedom, p = 0.001


def test_targets_are_drawn_by_the_probabilities_of_the_references(difficulty):
    surprise = entropy = variance = 0.0
    for source, target, _ in sample(difficulty):
        weights = weighted_references(difficulty, source)
        mean = -sum(p * math.log(p) for p in weights.values())
        surprise, entropy = surprise - math.log(weights[target]), entropy + mean
        variance += sum(p * (-math.log(p) - mean) ** 2 for p in weights.values())
    assert abs(surprise - entropy) < 3.3 * math.sqrt(variance)


def test_a_model_of_positions_cannot_translate_the_demo():
    """The best word at each position, given the true marginals and the best length, is mostly no translation."""
    right, coin = 0, random.Random(0)
    for source, _, _ in sample("demo", "test")[:400]:
        weighted = [(text.split(), p) for text, p in weighted_references("demo", source).items()]
        lengths = Counter()
        for words, p in weighted:
            lengths[len(words)] += p
        positions = [Counter() for _ in range(max(lengths, key=lengths.get))]
        for words, p in weighted:
            if len(words) == len(positions):
                for position, word in zip(positions, words, strict=True):
                    position[word] += p
        best = [max(sorted(words), key=lambda w, p=words: p[w] * coin.uniform(0.99, 1)) for words in positions]
        right += exactly_valid("demo", source, " ".join(best))
    assert right < 0.2 * 400


def test_exactly_valid_rejects_what_is_nearly_right(difficulty):
    for source, target, _ in sample(difficulty)[:200]:
        words = target.split()
        assert all(exactly_valid(difficulty, source, text) for text in (target, f"  {'  '.join(words)}\n"))
        wrong = [words[:i] + words[i + 1 :] for i in range(len(words))]
        wrong += [words[: i + 1] + words[i:] for i in range(len(words))]
        wrong += [[target[:-1]], [target.lower()], words[::-1], words + words]
        assert not any(exactly_valid(difficulty, source, " ".join(hypothesis)) for hypothesis in wrong)


OUTSIDE = """demo: The horse sells the farmer.|demo: Today the farmer eats the house here.
demo: Today the farmer sells the very old horse here.|demo: The farmer sells the horse.
demo: Today the teacher often reads the book.|hard: The farmer sells the horse yesterday.
hard: The farmer sold the horse tomorrow.|hard: A old farmer sold an horse.|hard: The farmer helps the farmer.
hard: The farmer shows the horse.|hard: The farmer often read the book when it was raining.
hard: The farmer sold the horse because it is raining.|hard: the farmer sold the horse.|hard: The farmer sold the horse
hard: ."""


@pytest.mark.parametrize("row", [*table(OUTSIDE), "hard: "])
def test_sentences_outside_the_grammar_are_refused(row):
    difficulty, source = row.split(": ")
    with pytest.raises(DataError, match="not a sentence of the") as caught:
        references(difficulty, source)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError):
        exactly_valid(difficulty, source, "Der Bauer verkauft das Pferd.")


def test_wrong_arguments_are_refused(monkeypatch):
    with pytest.raises(DataError, match=r"unknown difficulty 'easy'.*demo, hard"):
        generate("easy", "train", 1)
    with pytest.raises(DataError, match=r"unknown split 'dev'.*train, valid, test"):
        generate("demo", "dev", 1)
    with pytest.raises(DataError, match="cannot draw -1 sentences"):
        generate("demo", "train", -1)
    monkeypatch.setattr(grammar, "_MAX_MISSES", 3)
    with pytest.raises(DataError, match="no 500 sentences in the valid split of demo: ask for"):
        generate("demo", "valid", 500)


def test_the_same_everywhere(difficulty):
    code = "import sys; sys.path[:0] = sys.argv[1:]; import test_grammar as t; print(t.checksum(sys.argv[3]))"
    for seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent), str(Path.cwd()), difficulty],
            env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert run.stdout.strip() == CHECKSUMS[difficulty]
    assert checksum(difficulty) == CHECKSUMS[difficulty] and grammar.GRAMMAR_VERSION == 1


def test_a_smaller_count_is_a_prefix_and_another_seed_another_sample(difficulty):
    assert generate(difficulty, "train", 0) == []
    assert generate(difficulty, "train", 100) == sample(difficulty)[:100]
    assert {e.source for e in sample(difficulty, seed=0)} != {e.source for e in sample(difficulty, seed=1)}
