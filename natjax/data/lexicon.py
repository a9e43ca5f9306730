"""The word tables of the embedded corpus: what `grammar` puts together into sentences.

English phrases are the keys. Wherever German has several good words, they stand with their probabilities, never equal,
so that one of them is always clearly the first choice. `DEMO` holds choices that are independent of the rest of the
sentence; `HARD` adds choices of gender, case, tense and word order.
"""

from typing import NamedTuple

Variants = dict[str, float]
"""German text -> its probability. Empty: nothing stands here."""

CASES = ("nominative", "accusative", "dative")
TENSES = ("present", "past", "modal")


class NounForm(NamedTuple):
    """One German noun: its probability, gender (m, f, n), nominative, and the form of its other cases."""

    share: float
    gender: str
    nominative: str
    oblique: str


class Noun(NamedTuple):
    """An English noun: what kind of thing it names, its German nouns, and the words that do not go with it."""

    kind: str
    forms: tuple[NounForm, ...]
    unsuited: frozenset[str]


class Adjective(NamedTuple):
    """Kinds of nouns that it goes with, and its German stems; endings are added to the stem."""

    kinds: frozenset[str]
    stems: Variants


class VerbForm(NamedTuple):
    """One German verb. `present` and `preterite` are the third person singular without the separable prefix."""

    share: float
    infinitive: str
    present: str
    preterite: str
    participle: str
    prefix: str
    case: str


class Verb(NamedTuple):
    """An English verb (third person, past): kinds of objects, places where one does it, its German verbs.

    `repeatable`: one does it often to the same object (nobody sells one horse again and again). `recipient`: it needs
    somebody in the dative (shows the child the horse).
    """

    present: str
    past: str
    kinds: frozenset[str]
    places: frozenset[str]
    forms: tuple[VerbForm, ...]
    repeatable: bool
    recipient: bool


class Time(NamedTuple):
    """A time: its German phrases, the tenses and the conjunctions that it goes with (not "today when it is cold")."""

    german: Variants
    tenses: frozenset[str]
    when: bool = True


class Conjunction(NamedTuple):
    """One German conjunction for a present and a past clause; `second`: the verb stays second, the clause last."""

    share: float
    present: str
    past: str
    second: bool = False


class Reason(NamedTuple):
    """A short clause in parts: subject, complement, finite verb."""

    subject: str
    complement: str
    verb: str
    past: bool


class Lexicon(NamedTuple):
    """All tables of one difficulty, its word orders, and its bounds.

    Orders are strings of letters, read by `grammar`: a opening adverbial, s subject, V finite verb, t time, p place,
    r recipient, o object, E what the predicate has at the end of a main clause, F the whole predicate in final place.
    `openings`: shares of English sentences that open with a matrix clause, an adverb, a time, or the subject ("").
    `slots`: how often optional slots are filled where they can be.
    `min_offsets`: how many choices between wordings of different length every sentence has.
    """

    determiners: tuple[str, ...]
    nouns: dict[str, Noun]
    adjectives: dict[str, Adjective]
    verbs: dict[str, Verb]
    modals: dict[str, str]
    often: dict[str, Time]
    times: dict[str, Time]
    places: dict[str, Variants]
    matrices: dict[str, Variants]
    adverbs: dict[str, Variants]
    recipients: dict[str, Variants]
    conjunctions: dict[str, tuple[Conjunction, ...]]
    reasons: dict[str, Reason]
    main_orders: Variants
    inverted_orders: Variants
    final_orders: Variants
    openings: Variants
    tenses: Variants
    slots: dict[str, float]
    min_offsets: int
    max_references: int
    max_words: int


def _noun(kind: str, *forms: str, unsuited: str = "") -> Noun:
    """Forms as "share gender nominative [oblique]"; `unsuited` separated by commas."""
    rows = [form.split() for form in forms]
    german = tuple(NounForm(float(row[0]), row[1], row[2], row[-1]) for row in rows)
    return Noun(kind, german, frozenset(unsuited.split(", ")))


def _adjective(kinds: str, **stems: float) -> Adjective:
    return Adjective(frozenset(kinds.split()), stems)


def _verb(english: str, kinds: str, places: set[str], forms: str, repeatable=False, recipient=False) -> Verb:
    """Forms as "share [prefix|]infinitive present preterite participle [case]", separated by commas."""
    german = []
    for form in forms.split(", "):
        share, infinitive, present, preterite, participle, *case = form.split()
        prefix = infinitive.partition("|")[0] if "|" in infinitive else ""
        infinitive = infinitive.replace("|", "")
        german.append(
            VerbForm(float(share), infinitive, present, preterite, participle, prefix, *case or ["accusative"])
        )
    present, past = english.split(", ")
    return Verb(present, past, frozenset(kinds.split()), frozenset(places), tuple(german), repeatable, recipient)


# Gender -> nominative, accusative, dative.
_THE = {"m": ("der", "den", "dem"), "f": ("die", "die", "der"), "n": ("das", "das", "dem")}
_A = {"m": ("ein", "einen", "einem"), "f": ("eine", "eine", "einer"), "n": ("ein", "ein", "einem")}
_WEAK = {"m": ("e", "en", "en"), "f": ("e", "e", "en"), "n": ("e", "e", "en")}
_MIXED = {"m": ("er", "en", "en"), "f": ("e", "e", "en"), "n": ("es", "es", "en")}
_MY = {gender: tuple("m" + article for article in articles) for gender, articles in _A.items()}
DETERMINERS = {"the": (_THE, _WEAK), "a": (_A, _MIXED), "my": (_MY, _MIXED)}
"""English determiner -> its German articles and the adjective endings after them, by gender and case."""

_NO_PLACE_FOR_HOUSES = "at the market, in the garden, at home"
_DEMO_NOUNS = {
    "farmer": _noun("person", "0.65 m Bauer Bauern", "0.35 m Landwirt", unsuited="my"),
    "doctor": _noun("person", "1 m Arzt"),
    "man": _noun("person", "1 m Mann", unsuited="my"),
    "king": _noun("person", "1 m König", unsuited="my"),
    "boy": _noun("person", "0.65 m Junge Jungen", "0.35 m Bub Buben", unsuited="my, old, young, rich"),
    "woman": _noun("person", "1 f Frau", unsuited="my"),
    "grandmother": _noun("person", "0.6 f Großmutter", "0.4 f Oma", unsuited="a, young"),
    "girl": _noun("person", "1 n Mädchen", unsuited="my, old, young"),
    "child": _noun("person", "1 n Kind", unsuited="old, young"),
    "horse": _noun("animal", "0.65 n Pferd", "0.35 n Ross"),
    "dog": _noun("animal", "1 m Hund"),
    "cat": _noun("animal", "1 f Katze"),
    "house": _noun("building", "1 n Haus", unsuited=_NO_PLACE_FOR_HOUSES),
    "picture": _noun("art", "0.6 n Bild", "0.4 n Gemälde"),
    "book": _noun("text", "1 n Buch"),
    "newspaper": _noun("text", "1 f Zeitung"),
    "letter": _noun("letter", "1 m Brief"),
    "apple": _noun("food", "1 m Apfel"),
    "bread": _noun("food", "1 n Brot", unsuited="a"),
    "clock": _noun("thing", "1 f Uhr"),
    "chair": _noun("thing", "1 m Stuhl"),
}
_HARD_NOUNS = _DEMO_NOUNS | {
    "teacher": _noun("person", "0.55 m Lehrer", "0.45 f Lehrerin"),
    "neighbour": _noun("person", "0.55 m Nachbar Nachbarn", "0.45 f Nachbarin"),
    "student": _noun("person", "0.55 m Student Studenten", "0.45 f Studentin", unsuited="my, old"),
    "cow": _noun("animal", "1 f Kuh"),
    "letter": _noun("letter", "0.6 m Brief", "0.4 n Schreiben"),
    "car": _noun("thing", "0.55 n Auto", "0.45 m Wagen", unsuited="at home"),
    "boat": _noun("thing", "0.55 n Boot", "0.45 m Kahn", unsuited="at home"),
    "sofa": _noun("thing", "0.55 n Sofa", "0.45 f Couch"),
    "bag": _noun("thing", "0.55 f Tasche", "0.45 m Beutel"),
    "bread roll": _noun("food", "0.6 n Brötchen", "0.4 f Semmel"),
    "door": _noun("opening", "1 f Tür", unsuited="at the market, in the garden"),
    "window": _noun("opening", "1 n Fenster", unsuited="at the market, in the garden"),
}

_DEMO_ADJECTIVES = {
    "old": _adjective("person animal building art text letter thing", alt=1),
    "young": _adjective("person", jung=1),
    "friendly": _adjective("person", freundlich=0.6, nett=0.4),
    "clever": _adjective("person", klug=1),
    "rich": _adjective("person", reich=1),
    "tired": _adjective("person", müd=1),
    "small": _adjective("animal building art text letter food thing opening", klein=1),
    "big": _adjective("animal building art food thing opening", groß=1),
    "new": _adjective("building text thing opening", neu=1),
    "beautiful": _adjective("animal building art thing", schön=0.6, hübsch=0.4),
    "expensive": _adjective("animal building art thing", teur=0.65, kostspielig=0.35),
    "fresh": _adjective("food", frisch=1),
    "long": _adjective("letter", lang=1),
}
_HARD_ADJECTIVES = _DEMO_ADJECTIVES | {
    "broken": _adjective("thing opening", kaputt=0.6, defekt=0.4),
    "strange": _adjective("animal building art letter thing", seltsam=0.55, merkwürdig=0.45),
}

_ROOM = {"here", "there", "at home"}
_HOME = _ROOM | {"in the garden"}
_MARKET = {"here", "there", "at the market"}
_OUT = _MARKET | {"in the garden"}
_GOODS = "animal building art text thing"
_FINDS = "animal text letter thing"
_SIGHTS = "animal building art letter thing"
_DEMO_VERBS = {
    "sell": _verb("sells, sold", f"{_GOODS} food", _MARKET, "1 verkaufen verkauft verkaufte verkauft"),
    "buy": _verb(
        "buys, bought", _GOODS, _MARKET, "0.65 kaufen kauft kaufte gekauft, 0.35 erwerben erwirbt erwarb erworben"
    ),
    "see": _verb(
        "sees, saw",
        _SIGHTS,
        _OUT,
        "0.65 sehen sieht sah gesehen, 0.35 erblicken erblickt erblickte erblickt",
        repeatable=True,
    ),
    "find": _verb(
        "finds, found", _FINDS, _OUT, "0.6 finden findet fand gefunden, 0.4 entdecken entdeckt entdeckte entdeckt"
    ),
    "look for": _verb("looks for, looked for", _FINDS, _OUT, "1 suchen sucht suchte gesucht", repeatable=True),
    "eat": _verb(
        "eats, ate", "food", _HOME, "0.65 essen isst aß gegessen, 0.35 verspeisen verspeist verspeiste verspeist"
    ),
    "read": _verb("reads, read", "text letter", _HOME, "1 lesen liest las gelesen", repeatable=True),
    "clean": _verb(
        "cleans, cleaned",
        "building thing opening",
        _HOME,
        "0.6 reinigen reinigt reinigte gereinigt, 0.4 säubern säubert säuberte gesäubert",
        repeatable=True,
    ),
    "feed": _verb("feeds, fed", "animal", _HOME, "1 füttern füttert fütterte gefüttert", repeatable=True),
}
_PERSON_TOO = frozenset({"person"})
_HARD_VERBS = _DEMO_VERBS | {
    "see": _DEMO_VERBS["see"]._replace(kinds=_DEMO_VERBS["see"].kinds | _PERSON_TOO),
    "look for": _DEMO_VERBS["look for"]._replace(kinds=_DEMO_VERBS["look for"].kinds | _PERSON_TOO),
    "repair": _verb("repairs, repaired", "thing opening", _HOME, "1 reparieren repariert reparierte repariert"),
    "look at": _verb(
        "looks at, looked at",
        _SIGHTS,
        _OUT,
        "0.55 betrachten betrachtet betrachtete betrachtet, 0.45 an|sehen sieht sah angesehen",
        repeatable=True,
    ),
    "open": _verb(
        "opens, opened",
        "opening letter",
        _ROOM,
        "0.55 öffnen öffnet öffnete geöffnet, 0.45 auf|machen macht machte aufgemacht",
    ),
    "invite": _verb("invites, invited", "person", set(), "1 ein|laden lädt lud eingeladen", repeatable=True),
    "help": _verb(
        "helps, helped",
        "person",
        _OUT | _HOME,
        "0.55 helfen hilft half geholfen dative, 0.45 unterstützen unterstützt unterstützte unterstützt",
        repeatable=True,
    ),
    "show": _verb(
        "shows, showed", f"{_SIGHTS} text", _OUT, "1 zeigen zeigt zeigte gezeigt", repeatable=True, recipient=True
    ),
}

# Where wordings differ in length, the longer is the more probable one. It needs all of its frames, while the shorter
# may lie on any of them: so the argmax of a model that treats frames as independent given the source stays whole. And
# most shifts are of two words: the length of a sentence does not tell which of its choices made it longer, so that a
# model of positions blends them even where it knows the length.
VERY: Variants = {"ganz besonders": 0.6, "sehr": 0.4}
_ANY_TENSE = frozenset(TENSES)
_MODAL = frozenset({"modal"})
_PAST = frozenset({"past"})
_DEMO_TIMES = {
    "today": Time({"am heutigen Tag": 0.6, "heute": 0.4}, _ANY_TENSE, when=False),
    "now": Time({"in diesem Moment": 0.6, "jetzt": 0.4}, frozenset({"present", "modal"}), when=False),
    "soon": Time({"in kurzer Zeit": 0.6, "bald": 0.4}, _MODAL, when=False),
    "tomorrow": Time({"am morgigen Tag": 0.6, "morgen": 0.4}, _MODAL),
}
_HARD_TIMES = _DEMO_TIMES | {
    "in the evening": Time({"am Abend": 0.6, "abends": 0.4}, _ANY_TENSE),
    "yesterday": Time({"gestern": 0.6, "am gestrigen Tag": 0.4}, _PAST),
    "last week": Time({"letzte Woche": 0.55, "in der letzten Woche": 0.45}, _PAST),
}
_DEMO_PLACES = {
    "here": {"an diesem Ort": 0.6, "hier": 0.4},
    "there": {"an jenem Ort": 0.6, "dort": 0.4},
    "at the market": {"auf dem Markt": 1.0},
    "in the garden": {"im Garten": 1.0},
}
_DEMO_MATRICES = {
    "I know that": {"es ist mir bekannt, dass": 0.6, "ich weiß, dass": 0.4},
    "I believe that": {"ich bin der Meinung, dass": 0.6, "ich glaube, dass": 0.4},
    "I do not know whether": {"es entzieht sich meiner Kenntnis, ob": 0.6, "ich weiß nicht, ob": 0.4},
}
_DEMO_ADVERBS = {
    "apparently": {"allem Anschein nach": 0.6, "offenbar": 0.4},
    "indeed": {"in der Tat": 0.6, "tatsächlich": 0.4},
    "undoubtedly": {"ohne jeden Zweifel": 0.6, "zweifellos": 0.4},
}

DEMO = Lexicon(
    determiners=("the",),
    nouns=_DEMO_NOUNS,
    adjectives=_DEMO_ADJECTIVES,
    verbs=_DEMO_VERBS,
    modals={"wants to": "will", "can": "kann", "must": "muss", "will": "wird"},
    often={"often": Time({"immer wieder": 0.6, "oft": 0.4}, frozenset({"present", "past"}))},
    times=_DEMO_TIMES,
    places=_DEMO_PLACES,
    matrices=_DEMO_MATRICES,
    adverbs=_DEMO_ADVERBS,
    recipients={},
    conjunctions={},
    reasons={},
    main_orders={"sVtproE": 1.0},
    inverted_orders={"VstproE": 1.0},
    final_orders={"stproF": 1.0},
    openings={"matrix": 0.38, "adverb": 0.24, "time": 0.28, "": 0.1},
    tenses={"present": 0.62, "modal": 0.38},
    slots={"quality": 0.8, "very": 0.75, "often": 0.4, "trait": 0.4, "place": 0.5, "time": 0.85},
    min_offsets=3,
    max_references=64,
    max_words=18,
)

HARD = DEMO._replace(
    determiners=("the", "a", "my"),
    nouns=_HARD_NOUNS,
    adjectives=_HARD_ADJECTIVES,
    verbs=_HARD_VERBS,
    times=_HARD_TIMES,
    places=_DEMO_PLACES | {"at home": {"zu Hause": 0.6, "daheim": 0.4}},
    adverbs=_DEMO_ADVERBS | {"luckily": {"zum Glück": 0.6, "glücklicherweise": 0.4}},
    recipients={
        "the child": {"dem Kind": 1.0},
        "the neighbour": {"dem Nachbarn": 0.55, "der Nachbarin": 0.45},
        "the farmer": {"dem Bauern": 0.65, "dem Landwirt": 0.35},
    },
    conjunctions={
        "because": (Conjunction(0.55, "weil", "weil"), Conjunction(0.45, "denn", "denn", second=True)),
        "although": (Conjunction(0.6, "obwohl", "obwohl"), Conjunction(0.4, "obgleich", "obgleich")),
        "when": (Conjunction(1, "wenn", "als"),),
    },
    reasons={
        "it is raining": Reason("es", "", "regnet", past=False),
        "it was raining": Reason("es", "", "regnete", past=True),
        "it is late": Reason("es", "spät", "ist", past=False),
        "it was late": Reason("es", "spät", "war", past=True),
        "it is cold": Reason("es", "kalt", "ist", past=False),
        "it was cold": Reason("es", "kalt", "war", past=True),
        "the sun is shining": Reason("die Sonne", "", "scheint", past=False),
        "the sun was shining": Reason("die Sonne", "", "schien", past=True),
        "the weather is fine": Reason("das Wetter", "schön", "ist", past=False),
        "the weather was fine": Reason("das Wetter", "schön", "war", past=True),
        "the guests are coming": Reason("die Gäste", "", "kommen", past=False),
        "the guests were coming": Reason("die Gäste", "", "kamen", past=True),
        "the music is playing": Reason("die Musik", "", "spielt", past=False),
        "the music was playing": Reason("die Musik", "", "spielte", past=True),
    },
    main_orders={"sVtproE": 0.22, "sVptroE": 0.18, "tVsproE": 0.32, "pVstroE": 0.28},
    inverted_orders={"VstproE": 0.55, "VsptroE": 0.45},
    final_orders={"stproF": 0.55, "sptroF": 0.45},
    openings={"matrix": 0.22, "adverb": 0.13, "": 0.65},
    tenses={"present": 0.45, "modal": 0.25, "past": 0.3},
    slots={"quality": 0.55, "very": 0.4, "often": 0.4, "trait": 0.4, "place": 0.3, "time": 0.55},
    min_offsets=0,
    max_references=96,
    max_words=24,
)
