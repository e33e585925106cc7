"""The language of the asker, and what is made of it: a hint for the model, ``langs`` of a reply.

A post comes in; its language goes out where it is known: what the platform says (``langs``), else
what a small offline detector (py3langid) makes of the text without handles and links. Short or
doubtful text: unknown. Guaranteed: the words of the hint come from the settings and from the
table below, never from the feed. Next: ``bot/prompt.py`` and ``bot/reply.py``.

The hint is no more than that: a small model may answer in the language of its prompt all the
same, and then ``langs`` of the reply says so, where the detector is sure.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import regex

from bot.links import without_links
from bot.reply import langs_of
from schemas.audit import RuleVerdict
from schemas.feed import Message, Post

LONGEST = 2000  # characters of a text that are looked at
LEAST = 6  # letters below which nothing is told
SURE = 0.5  # of 1: the detector's probability for an asker's text
SURE_OF_REPLY = 0.8  # ... for a reply in another language than the asker's

_NAMES = (
    "af Afrikaans, am Amharic, ar Arabic, az Azerbaijani, be Belarusian, bg Bulgarian, bn Bengali, "
    "br Breton, bs Bosnian, ca Catalan, cs Czech, cy Welsh, da Danish, de German, el Greek, "
    "en English, eo Esperanto, es Spanish, et Estonian, eu Basque, fa Persian, fi Finnish, "
    "fil Filipino, fo Faroese, fr French, fy Frisian, ga Irish, gd Scottish Gaelic, gl Galician, "
    "gu Gujarati, ha Hausa, he Hebrew, hi Hindi, hr Croatian, ht Haitian Creole, hu Hungarian, "
    "hy Armenian, id Indonesian, ig Igbo, is Icelandic, it Italian, ja Japanese, jv Javanese, "
    "ka Georgian, kk Kazakh, km Khmer, kn Kannada, ko Korean, ku Kurdish, ky Kyrgyz, la Latin, "
    "lb Luxembourgish, lo Lao, lt Lithuanian, lv Latvian, mg Malagasy, mk Macedonian, "
    "ml Malayalam, mn Mongolian, mr Marathi, ms Malay, mt Maltese, my Burmese, nb Norwegian, "
    "ne Nepali, nl Dutch, nn Norwegian Nynorsk, no Norwegian, oc Occitan, or Odia, pa Punjabi, "
    "pl Polish, ps Pashto, pt Portuguese, ro Romanian, ru Russian, rw Kinyarwanda, si Sinhala, "
    "sk Slovak, sl Slovenian, so Somali, sq Albanian, sr Serbian, sv Swedish, sw Swahili, "
    "ta Tamil, te Telugu, tg Tajik, th Thai, tk Turkmen, tl Tagalog, tr Turkish, tt Tatar, "
    "ug Uyghur, uk Ukrainian, ur Urdu, uz Uzbek, vi Vietnamese, xh Xhosa, yi Yiddish, yo Yoruba, "
    "zh Chinese, zu Zulu"
)
NAMES = dict(entry.split(" ", 1) for entry in _NAMES.split(", "))
"""English names by code (ISO 639); a language that has none here gets no hint."""

_LETTER = regex.compile(r"\p{L}")

Detect = Callable[[str], tuple[str, float]]
"""The likeliest language of a text and its probability, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Tongue:
    """A language: its tag (``pt-BR``) and whether the platform told it, or the text did."""

    tag: str
    told: bool

    @property
    def code(self) -> str:
        """The language alone: ``pt``."""
        return code_of(self.tag)


def code_of(tag: str) -> str:
    """The language of a tag, without script and country."""
    return tag.split("-", 1)[0].lower()


def tongue_of(post: Post | Message, detect: Detect | None = None) -> Tongue | None:
    """The language of a post: told by the platform, else by its text, else unknown."""
    if told := langs_of(post):
        return Tongue(told[0], told=True)
    code = detected(without_links(post.text[:LONGEST]), SURE, detect)
    return Tongue(code, told=False) if code else None


def detected(text: str, sure: float, detect: Detect | None = None) -> str | None:
    """The code of the language of ``text``; none where it is short or the detector not sure."""
    if len(_LETTER.findall(text)) < LEAST:
        return None
    code, probability = (detect or detector())(text)
    return code if probability >= sure and code in NAMES else None


def hint(tongue: Tongue | None, default: str, words: str) -> str:
    """What the prompt says of the language: ``words`` with its English name, nothing where it
    is unknown or the ``default`` of the prompt."""
    if tongue is None or tongue.code == code_of(default) or tongue.code not in NAMES:
        return ""
    return words.replace("{language}", NAMES[tongue.code]).strip()


def langs_of_reply(
    text: str, post: Post | Message, tongue: Tongue | None, detect: Detect | None = None
) -> tuple[str, ...]:
    """``langs`` of a reply: those of the asker, unless its text is surely in another language."""
    asked = langs_of(post) or ((tongue.tag,) if tongue else ())
    code = detected(text[:LONGEST], SURE_OF_REPLY, detect)
    if code is None or code in map(code_of, asked):
        return asked
    return (code,)


def verdict(tongue: Tongue | None, *, hinted: bool) -> RuleVerdict:
    """What the audit says of the asker's language; of one that has no name here, only that."""
    if tongue is None:
        return RuleVerdict(name="language", verdict="unknown")
    code = tongue.code if tongue.code in NAMES else "another"
    detail = f"{code} {'told' if tongue.told else 'detected'}"
    return RuleVerdict(name="language", verdict="hint" if hinted else "pass", detail=detail)


@cache
def detector() -> Detect:
    """The detector; the first call takes most of a second."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    known = set(identifier.labels)
    identifier.set_languages([code for code in NAMES if code in known])
    # Choosing languages leaves the table by columns, and a text needs a hundred whole rows of it.
    identifier.nb_ptc = identifier.nb_ptc.copy(order="C")
    classify: Detect = identifier.classify
    return classify
