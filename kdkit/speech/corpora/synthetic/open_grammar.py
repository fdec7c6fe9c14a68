"""Sentences over thousands of words: what the voices of the synthetic corpus, version 2, say.

A grammar of phrases (who, did what, to what, where, when, why) over the word classes of :mod:`.open_words`. In every
class a few words are common and hundreds are rare, so a test has words that some minutes of training do not contain:
to write them, one has to hear them.
"""

from __future__ import annotations

import re

from kdkit.speech.corpora.synthetic.grammar import Uniform, transcript
from kdkit.speech.corpora.synthetic.open_words import CLASSES, inflect

SHORTEST, LONGEST = 4, 15  # words of a sentence
CORE, COMMON = 8, 0.9  # so many words of a class are common; the share of what is said that they make up

# A symbol expands to one of its alternatives, each equally likely (listed twice: twice as likely). {slots} are symbols
# or word classes; {class+ed} is a form of the word.
RULES: dict[str, tuple[str, ...]] = {
    "sentence": (
        "{deed}", "{deed}", "{deed}", "{deed} {when}", "{deed} {where}", "{when}, {deed}",
        "{deed} {because} {deed}", "{after} {deed}, {deed}", "{deed}, but {deed}", "{deed} and {deed}",
        "{going}", "{going} {when}", "{when}, {going}", "{going} and {deed}", "{while} {going}, {deed}",
        "{saying}", "{saying}", "{meal}", "{meal}", "{scene}", "{scene}", "{nature}", "{nature}", "{event}",
        "{event}", "{question}", "{question}", "{question}", "{request}", "{request}", "{plan}", "{plan}",
        "{habit}", "{habit}", "{passive}", "{passive}", "{denial}", "{denial}", "{likeness}", "{count}",
        "{count}", "{digits}", "{opinion}", "{opinion}", "{condition}", "{now}", "{now}", "{travel}",
        "{gift}", "{gift}",
    ),
    # clauses in the past
    "deed": (
        "{person} {handle+ed} {object}", "{person} {handle+ed} {object}", "{person} {handle+ed} {objects}",
        "{person} {swift+ly} {handle+ed} {object}", "{people} {handle+ed} {object}",
        "{person} {sense+ed} {object}", "{person} {sense+ed} {creature}", "{people} {sense+ed} {topic}",
        "{person} {treat+ed} {person}", "{person} {treat+ed} {people}", "{name} {treat+ed} {whom} {swift+ly}",
        "{person} {act+ed} and {act+ed}", "{people} {act+ed} {where}", "{name} {act+ed} {swift+ly}",
        "{person} {found} {object} {where}", "{person} {found} {objects}", "{name} {found} {topic}",
        "{person} {handle+ed} and {handle+ed} {object}", "{person} {talk+ed} about {topic}",
        "{people} {talk+ed} about {person}", "the {idea} {treat+ed} {person}",
        "{person} used {object} to {handle} {object}", "{person} helped {person} to {handle} {object}",
        "{person} forgot to {handle} {object}", "{name} {act+ed} {manner}",
        "{person} tried to {sense} {topic}",
    ),
    "going": (
        "{person} {move+ed} {path}", "{person} {move+ed} {path}", "{people} {move+ed} {path}",
        "{name} {move+ed} {path} {swift+ly}", "{creature} {move+ed} {path}", "{creature} {move+ed} {path}",
        "{person} went {path}", "{person} came {path} with {creature}", "{person} drove the {vehicle} {path}",
        "{people} ran {path}", "the {colour} {vehicle} {move+ed} {path}", "{name} {move+ed} {manner}",
    ),
    "saying": (
        "{person} {say+ed} that {deed}", "{person} {say+ed} that {object} was {state}",
        "{people} {say+ed} that {person} was {mood}", "{person} said that {going}",
        "{name} said {object} was {state}", "{person} told {whom} about {topic}",
        "{name} thought that {person} was {mood}", "{person} knew that {topic} was {taste}",
    ),
    "meal": (
        "{person} {cook+ed} {food} and {food}", "{person} {cook+ed} {some} {taste} {dish}",
        "{people} {cook+ed} {dish+s} with {food}", "{name} wanted {food} for {eating}",
        "the {dish} tasted {taste}", "{person} ordered {number} {dish+s}",
        "the {taste} {food} was {cook+ed} with {dish+s}",
        "the {dish+s} were {taste}, but the {food} was {taste}", "we had {food} and {dish+s} for {eating}",
        "{name} {cook+ed} the {food} and {cook+ed} the {dish+s}",
        "{person} {handle+ed} the {food} before {eating}",
    ),
    "scene": (
        "{object} is {on} {object}", "there was {some} {shape} {thing} {on} the {furniture}",
        "there were {number} {animal+s} {where}", "{objects} are {on} the {furniture}",
        "{creature} was asleep {where}", "{some} {colour} {tree} grows {where}",
        "the {building} is near the {land}", "{topic} is in the {thing}",
        "the {tree+s} by the {land} are {colour}", "{whose} {part} is {state}",
        "the {building} was full of {people}",
        "between the {building} and the {land} was {some} {shape} {tree}", "a {shape} {animal} stood {where}",
    ),
    "nature": (
        "it was {weather} and {weather} in {town}", "{when}, it will be {weather} near the {land}",
        "the {land} is {weather} in {month}", "a {weather} wind {move+ed} {path}",
        "{month} was {weather}, but {month} will be {weather}", "the {tree} {happen+ed} near the {land}",
        "the {weather} {land} {happen+ed} in the evening", "the {land} looked {shape} and {weather}",
        "it gets {weather} when the {animal+s} {move}",
    ),
    "event": (
        "the {thing} {happen+ed}", "the {state} {thing} {happen+ed} {when}",
        "the {vehicle} {happen+ed} {where}", "{objects} {happen+ed}",
        "the {thing} {happen+ed} when {person} {handle+ed} it", "the {idea} {happen+ed} {when}",
        "suddenly the {thing} {happen+ed} and the {thing} {happen+ed}",
        "the {furniture} {happen+ed} {swift+ly}",
    ),
    "question": (
        "where is {object}?", "where did {person} {handle} {object}?",
        "did {person} {handle} {object} {when}?", "why did {person} {treat} {person}?",
        "how many {thing+s} are {on} the {furniture}?", "who {handle+ed} {object}?",
        "is {object} {state} or {state}?", "can you {handle} {object}?", "have you {sense+ed} {creature}?",
        "when will {person} {move} {path}?", "which {thing} is {degree+er}?",
        "would you like {some} {dish} or {food}?", "was {person} {mood} about {topic}?",
        "what did {person} {say} {when}?", "do {people} {act} {where}?", "are {people} {act+ing} {where}?",
        "could {name} {sense} {topic}?",
    ),
    "request": (
        "please {handle} {object}", "please {handle} {object} {when}",
        "{name}, {handle} {object} before {eating}", "{handle} {object} and {handle} {object}",
        "don't {handle} {object}", "could you {treat} {person}?", "never {treat} {some} {mood} {job}",
        "let us {move} {path}", "try to {sense} {topic}", "{move} {path} and {handle} {object}",
        "remember to {cook} the {food} {swift+ly}", "turn {side} at the {building}",
    ),
    "plan": (
        "{person} will {handle} {object} {when}", "{people} will {move} {path}",
        "{person} wants to {handle} {object}", "i want to {treat} {person}",
        "{name} must {handle} {some} {state} {thing}", "we should {sense} {topic}",
        "they are going to {move} {path}", "{person} hopes to {act} {where}",
        "{when}, we will {treat} {person}", "{person} can {cook} {some} {taste} {dish}",
        "we might {act} {when}",
    ),
    "habit": (
        "{person} always {handle+s} {object}", "{person} {act+s} every {day}",
        "every {day}, {person} {move+s} {path}", "{people} often {sense} {topic}",
        "{person} never {cook+s} {food}", "{person} {talk+s} about {topic}",
        "{person} usually {sense+s} {creature}", "{animal+s} {move} {path}", "{animal+s} {sense} {food}",
        "{name} likes {act+ing} {where}", "{person} enjoys {handle+ing} {thing+s}",
        "most {job+s} {sense} {food}", "{handle+ing} {thing+s} makes {person} {mood}",
    ),
    "passive": (
        "{object} was {handle+ed} by {person}", "{objects} were {handle+ed} {when}",
        "{person} was {treat+ed} by {person}", "{people} were {treat+ed} {where}",
        "{object} is {handle+ed} every {day}", "{topic} was {sense+ed} by {people}",
        "{object} has been {handle+ed}", "{objects} must be {handle+ed} {when}",
    ),
    "denial": (
        "{person} didn't {handle} {object}", "{person} doesn't {sense} {creature}",
        "i don't want {food} with my {dish+s}", "we can't {handle} {object} {where}", "{name} isn't {mood}",
        "{people} aren't {where}", "they won't {treat} {person}", "{person} could not {sense} {topic}",
        "nobody {handle+ed} {object}", "there is no {thing} {on} the {furniture}",
    ),
    "likeness": (
        "the {thing} is {degree+er} than the {thing}", "{person} is {degree+er} than {person}",
        "the {degree+est} {animal} {move+ed} {path}", "the {animal} is as {shape} as {some} {thing}",
        "this {thing} is the {degree+est} {where}",
    ),
    "count": (
        "there are {number} {thing+s} in the {building}", "the {state} {thing} costs {number} dollars",
        "we need {number} {thing+s} and {number} {dish+s}", "{person} has {number} {state} {thing+s}",
        "{number} {job+s} and {number} {animal+s} were {where}", "{name} sold {number} {clothing+s}",
        "the {land} is {number} miles from {town}",
    ),
    "digits": (
        "the number is {digit} {digit} {digit} {digit} {digit}",
        "call {name} at {digit} {digit} {digit} {digit}", "room {digit} {digit} is next to the {building}",
        "page {number}, part {digit}, word {digit}",
    ),
    "opinion": (
        "i think {name} should {sense} {topic}", "{person} was {mood} about {topic}",
        "{person} seems {mood} and {mood}", "{topic} made {person} {mood}", "the {mood} {job} looked {mood}",
        "{person} and {person} are {mood}", "it is {taste} to {handle} {object}", "what a {state} {thing}",
        "{person} thinks {topic} is {taste}",
    ),
    "condition": (
        "if {person} {handle+s} {object}, {person} will {act}", "{person} will {act} unless {person} {act+s}",
        "if it is {weather}, we will {move} {path}", "when {person} {act+s}, {people} {act}",
    ),
    "now": (
        "{person} is {handle+ing} {object}", "{people} are {move+ing} {path}",
        "{creature} is {move+ing} {path}", "{person} was {act+ing} {where}", "{person} keeps {act+ing}",
        "{people} were {handle+ing} {object}", "{person} is {treat+ing} {person}",
        "{name} is {cook+ing} {food} {where}", "{person} started {handle+ing} {object}",
    ),
    "travel": (
        "the {vehicle} to {town} {leaves} at {clock}", "meet {whom} at the {building} at {clock}",
        "{person} took the {vehicle} from {town} to {town}", "the {building} is {minutes} from the {land}",
        "the {vehicle} from {town} was {minutes} late",
    ),
    "gift": (
        "{person} {gave} {whom} {some} {state} {thing}", "{person} {gave} {person} {number} {dish+s}",
        "{name} {gave} {whom} {object}", "{person} bought {some} {colour} {clothing} for {name}",
    ),
    # who
    "name": ("{given}", "{given}", "{given}", "{given} {family}"),
    "person": (
        "{name}", "{name}", "{name}", "the {job}", "the {job}", "{whose} {kin}", "the {mood} {job}",
        "{some} {mood} {job}", "the {job} from {town}", "the {mood} {kin}",
        "the {job} with the {colour} {clothing}",
    ),
    "people": (
        "the {job+s}", "the {job+s}", "the {mood} {job+s}", "{given} and {given}", "some {job+s}",
        "{many} {job+s}", "{whose} {kin+s}", "all {mood} {job+s}",
    ),
    "creature": (
        "the {animal}", "the {animal}", "the {colour} {animal}", "{some} {shape} {animal}",
        "{whose} {animal}", "{given}'s {animal}", "the {mood} {animal}",
    ),
    "whom": ("me", "us", "him", "her", "them", "{given}", "{given}"),
    # what
    "object": (
        "{the} {thing}", "{the} {thing}", "{the} {state} {thing}", "{the} {state} {thing}",
        "{some} {shape} {thing}", "{the} {material} {thing}", "{whose} {thing}", "{given}'s {thing}",
        "{whose} {colour} {clothing}", "{the} {shape} {vehicle}", "{the} {furniture}",
        "{the} {state} {furniture}", "{the} {clothing}", "{the} {tree}", "{the} {shape} {material} {thing}",
        "{the} {thing} {on} {the} {furniture}", "{the} {job}'s {thing}", "{the} {dish}",
    ),
    "objects": (
        "{many} {thing+s}", "the {state} {thing+s}", "{some} {colour} {clothing} and {some} {thing}",
        "the {thing} and the {thing}", "all the {thing+s}", "{whose} {clothing+s}", "these {shape} {thing+s}",
        "{number} {state} {thing+s}", "the {tree+s}",
    ),
    "topic": (
        "{the} {idea}", "{the} {idea}", "{whose} {idea}", "{the} {idea} of {the} {job}",
        "{the} {state} {idea}", "{some} {idea}", "{the} {idea} in {town}", "{given}'s {idea}", "{animal+s}",
        "{the} {idea} about {the} {animal}",
    ),
    "the": ("the", "the", "the", "the", "this", "that", "my", "your", "our"),
    "some": ("a", "a", "a", "the", "this", "that", "another", "one"),
    "whose": ("my", "your", "his", "her", "our"),
    # where
    "where": (
        "at {the} {building}", "in {the} {building}", "near {the} {land}", "in {town}",
        "behind {the} {building}", "by {the} {land}", "outside {the} {building}", "at home",
        "under {the} {tree}", "{on} {the} {furniture}",
    ),
    "path": (
        "to {the} {building}", "to {town}", "along {the} {land}", "across {the} {land}",
        "around {the} {land}", "past {the} {building}", "through {the} {land}", "over {the} {land}",
        "into {the} {building}", "{on} {the} {furniture}", "from {the} {building} to {the} {land}",
        "out of {the} {building}", "away from {the} {animal}",
    ),
    "on": ("on", "under", "behind", "beside", "above", "below", "near", "inside"),
    "side": ("left", "right", "north", "south", "east", "west"),
    # when and why
    "when": (
        "today", "tomorrow", "yesterday", "on {day}", "on {day} morning", "in {month}", "this evening",
        "last night", "at {clock}", "after {eating}", "before {eating}", "next {day}", "{few} days ago",
        "after the {idea}", "in the morning", "during the {idea}",
    ),
    "because": ("because", "because", "so", "after", "before", "until", "while"),
    "after": ("when", "after", "before", "because", "although", "as soon as"),
    "while": ("while", "as", "when"),
    "day": ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
    "month": ("january", "march", "april", "may", "june", "july", "october", "november", "december"),
    "eating": ("breakfast", "lunch", "dinner"),
    "clock": (
        "{hour}", "half past {hour}", "{hour} thirty", "{hour} fifteen", "ten past {hour}", "noon",
        "midnight", "{hour} o'clock",
    ),
    "minutes": ("{number} minutes", "ten minutes", "half a mile", "{few} hours"),
    # how many
    "number": ("{few}", "{few}", "{tens}", "{tens} {digit}", "{teens}"),
    "hour": (
        "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    ),
    "few": ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    "many": ("{few}", "{few}", "many", "several"),
    "teens": ("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
    "tens": ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"),
    "digit": ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    # verbs that are not regular, or need two objects
    "found": (
        "found", "saw", "bought", "lost", "took", "made", "chose", "kept", "brought", "drew", "heard", "sold",
    ),
    "gave": ("gave", "sent", "showed", "lent", "offered"),
    "leaves": ("leaves", "arrives", "stops", "departs"),
}  # fmt: skip

_SLOT = re.compile(r"\{(\w+)(?:\+(\w+))?\}")
_OWNER = re.compile(_SLOT.pattern + "('s)?")
_ARTICLE = re.compile(r"\ba (?=[aeiou])(?!one\b|uni|use|eu)")


def spoken(rng: Uniform) -> str:
    """One random sentence with the punctuation that shapes its melody, like "when tilbo laughed, we left."."""
    while True:
        text = _ARTICLE.sub("an ", _expand("sentence", rng))
        if SHORTEST <= len(text.split()) <= LONGEST:
            return text if text.endswith("?") else text + "."


def sentence(rng: Uniform) -> str:
    """One random sentence: lower-case letters, apostrophes and single spaces."""
    return transcript(spoken(rng))


def _expand(symbol: str, rng: Uniform) -> str:
    # only rng.random(): its stream is the same in every version of Python and numpy
    alternatives = RULES[symbol]
    chosen = alternatives[int(rng.random() * len(alternatives))]

    def filled(slot: re.Match) -> str:
        name, form = slot.groups()
        return inflect(_draw(CLASSES[name], rng), form) if name in CLASSES else _expand(name, rng)

    return _SLOT.sub(filled, chosen)


def _draw(words: tuple[str, ...], rng: Uniform) -> str:
    """One of the words: nine times out of ten one of the first eight, otherwise any."""
    u, core = rng.random(), min(CORE, len(words))
    return words[int(u / COMMON * core) if u < COMMON else int((u - COMMON) / (1 - COMMON) * len(words))]


def _words() -> tuple[str, ...]:
    words = {"an"}
    for alternatives in RULES.values():
        for alternative in alternatives:
            words.update(transcript(_OWNER.sub(" ", alternative)).split())
            for name, form, owns in _OWNER.findall(alternative):
                words.update(inflect(word, form) + owns for word in CLASSES.get(name, ()))
    return tuple(sorted(words))


WORDS = _words()
"""Every word that the grammar can say, sorted."""
