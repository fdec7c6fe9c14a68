"""Everyday sentences from a small grammar of our own: what the synthetic voices say.

The grammar has structure (who does what, where and when), so that an n-gram language model helps, and free
choices (names, numbers, adjectives, places), so that it does not solve the task: only listening does. Most
words are spelled as they sound, because the recognisers of the lessons are small and learn from minutes.
"to"/"two" and "for"/"four" are the only homophones: a language model is meant to have something to do.
"""

from __future__ import annotations

import re
from typing import Protocol

_SLOT = re.compile(r"\{(\w+)\}")

# Each symbol expands to one of its alternatives; {slots} are expanded in turn. An alternative listed twice is
# twice as likely. Commas and question marks shape eSpeak's pauses and melody, and do not appear in the
# transcript.
RULES: dict[str, tuple[str, ...]] = {
    "sentence": (
        "{request}", "{request}", "{travel}", "{travel}", "{forecast}", "{past}", "{past}", "{past}",
        "{habit}", "{habit}", "{place}", "{place}", "{count}", "{count}", "{question}", "{question}",
        "{opinion}", "{negation}", "{direction}", "{digits}", "{plan}", "{plan}",
    ),
    "request": (
        "please {give} {whom} {some} {adjective} {thing}", "please {give} {whom} {number} {things}",
        "could you {handle} the {adjective} {thing} {when}?", "can you {handle} the {thing} {where}?",
        "{name}, {handle} the {adjective} {thing} before {meal}",
        "{handle} the {thing} and {handle} the {adjective} {thing}",
    ),
    "travel": (
        "the {vehicle} to {town} {leaves} at {clock}",
        "the {adjective} {vehicle} from {town} {leaves} {when}", "meet {whom} at the {building} at {clock}",
        "{person} took the {vehicle} from {town} to {town}",
        "{when}, the {vehicle} to the {building} was {minutes} late",
    ),
    "forecast": (
        "it was {weather} and {weather} in {town} {when}", "{when}, it will be {weather} near the {land}",
        "the {land} is {weather} in {month}", "a {weather} wind came over the {land} {when}",
        "{month} was {weather}, but {month} will be {weather}",
    ),
    "past": (
        "{person} {did} the {adjective} {thing} {where}", "{when}, {person} {did} {some} {adjective} {thing}",
        "{person} {did} {number} {things} for {person}", "{person} and {name} {did} the {thing} {when}",
        "{person} {did} {some} {adjective} {thing} and {some} {adjective} {animal}",
        "the {animal} jumped over the {adjective} {thing}",
    ),
    "habit": (
        "on {day}, {person} {eats} {food} with {food}", "{person} always {eats} {adjective} {food} {where}",
        "every {day}, {person} {eats} {food} for {meal}", "{person} never {eats} {food} before {clock}",
    ),
    "place": (
        "the {adjective} {thing} is {on} the {adjective} {furniture}",
        "{number} {things} are {on} the {furniture}", "{name} put the {thing} {on} the {furniture} {when}",
        "your {adjective} {thing} is in the {building}",
        "the {animal} is asleep {on} the {adjective} {furniture}",
    ),
    "count": (
        "there are {number} {adjective} {things} in the {building}",
        "the {adjective} {thing} costs {number} dollars", "we need {number} {things} and {number} {things}",
        "{person} has {number} {adjective} {things}", "{number} people and {number} {things} were {where}",
    ),
    "question": (
        "where is the {adjective} {thing}, {name}?", "did {person} find the {adjective} {thing} {when}?",
        "how many {things} are {on} the {furniture}?", "who {did} the {adjective} {thing} {where}?",
        "is the {vehicle} to {town} {adjective} or {adjective}?", "why is the {animal} {on} the {furniture}?",
    ),
    "opinion": (
        "{person} thinks that the {thing} is too {adjective}",
        "i think {name} should visit {town} in {month}",
        "the {food} tasted {adjective}, but the {food} tasted {adjective}",
        "{person} was happy about the {adjective} {thing}",
        "it is usually {weather} and rather {adjective} {where}",
    ),
    "negation": (
        "i don't want {food} with my {meal}", "we can't find the {adjective} {thing} {where}",
        "{person} didn't hear the {adjective} {animal}", "{name} isn't {where} {when}",
        "they won't sell the {thing} for {number} dollars",
    ),
    "direction": (
        "turn {side} at the {building} and walk {minutes}", "the {building} is {minutes} from the {building}",
        "go {side} after the {adjective} {building}", "keep {side}, then cross the {land} near {town}",
    ),
    "digits": (
        "the number is {digit} {digit} {digit} {digit} {digit}",
        "call {name} at {digit} {digit} {digit} {digit}", "room {digit} {digit} is next to the {building}",
        "page {number}, line {digit}, word {digit}",
    ),
    "plan": (
        "{when}, we will visit {person} in {town}", "{person} will {handle} the {thing} after {meal}",
        "let us have {food} and {food} at {clock}", "they want to {handle} the {adjective} {thing} {when}",
        "{name} must choose a {adjective} {thing} for {person}",
    ),
    # words
    "give": ("bring", "give", "send", "show", "lend"),
    "whom": ("me", "us", "him", "her", "them", "{name}"),
    "some": ("a", "the", "this", "that", "my", "your", "his", "another"),
    "handle": ("open", "clean", "check", "fix", "move", "watch", "measure", "push", "carry", "paint"),
    "name": (
        "peter", "maria", "david", "helen", "judy", "victor", "ruth", "george", "emma", "jack", "joyce",
        "zoe",
    ),
    "person": (
        "{name}", "{name}", "{name}", "my {kin}", "your {kin}", "the {job}", "the {job}",
        "a {adjective} {job}",
    ),
    "kin": ("mother", "father", "sister", "brother", "friend"),
    "job": (
        "teacher", "doctor", "farmer", "driver", "boy", "girl", "judge", "nurse", "king", "queen", "musician",
    ),
    "did": (
        "saw", "bought", "found", "lost", "liked", "took", "made", "wanted", "dropped", "opened", "cleaned",
        "moved", "enjoyed", "chose", "pushed",
    ),
    "eats": ("eats", "cooks", "wants", "orders", "enjoys", "makes"),
    "adjective": (
        "red", "green", "yellow", "brown", "black", "white", "big", "little", "large", "small", "cheap",
        "strange", "broken", "full", "smooth", "soft", "sharp", "round", "thick", "thin", "dirty", "fresh",
        "good", "bad", "wooden", "pretty", "slow", "quick", "short", "long", "huge", "royal", "perfect",
        "beige",
    ),
    "thing": (
        "book", "bottle", "box", "chair", "coat", "coin", "cup", "engine", "guitar", "hat", "jacket", "key",
        "lamp", "letter", "map", "pencil", "picture", "plate", "radio", "ring", "shirt", "television",
        "ticket", "toy", "treasure", "violin", "wheel", "window", "feather", "machine",
    ),
    "things": (
        "books", "bottles", "boxes", "coins", "cups", "keys", "letters", "plates", "shirts", "tickets",
        "toys", "{animals}",
    ),
    "animal": (
        "dog", "cat", "bird", "fish", "goose", "mouse", "lion", "tiger", "rabbit", "monkey", "cow", "fox",
    ),
    "animals": ("dogs", "cats", "birds", "rabbits"),
    "food": (
        "bread", "butter", "cheese", "soup", "rice", "chicken", "apples", "pie", "sugar", "coffee", "tea",
        "milk", "water", "juice", "ginger", "yogurt", "pizza",
    ),
    "meal": ("breakfast", "lunch", "dinner"),
    "weather": ("cold", "warm", "cloudy", "rainy", "sunny", "dry", "wet", "dark", "bright"),
    "land": (
        "river", "mountain", "lake", "beach", "forest", "island", "bridge", "road", "hill", "garden", "ocean",
    ),
    "building": (
        "station", "school", "market", "library", "church", "hotel", "bank", "museum", "office", "kitchen",
        "shop", "garage",
    ),
    "furniture": ("table", "shelf", "floor", "bed", "desk", "roof", "bench"),
    "town": ("london", "paris", "boston", "chicago", "tokyo", "berlin", "oslo", "cairo", "dublin", "asia"),
    "vehicle": ("train", "bus", "boat", "ship", "ferry", "truck"),
    "leaves": ("leaves", "arrives", "stops"),
    "on": ("on", "under", "behind", "beside", "near", "above", "below"),
    "where": (
        "at the {building}", "near the {land}", "in {town}", "by the {land}", "behind the {building}",
        "on the {furniture}", "outside the {building}", "at home",
    ),
    "when": (
        "today", "tomorrow", "yesterday", "on {day}", "on {day} morning", "in {month}", "this evening",
        "last night", "at {clock}", "after {meal}", "before {meal}", "next {day}", "{number} days ago",
    ),
    "day": ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
    "month": ("january", "march", "april", "may", "june", "october"),
    "clock": (
        "{hour}", "half past {hour}", "{hour} thirty", "{hour} fifteen", "ten past {hour}", "noon",
        "midnight", "{hour} o'clock", "{hour} o'clock",
    ),
    "hour": (
        "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    ),
    "minutes": (
        "{number} minutes", "five minutes", "ten minutes", "half a mile", "{many} miles", "{many} hours",
    ),
    "number": ("{many}", "{many}", "{many}", "{tens}", "{tens} {digit}", "fifteen"),
    "many": ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    "tens": ("twenty", "thirty", "forty", "fifty"),
    "digit": ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "side": ("left", "right", "straight ahead", "north", "south", "east", "west"),
}  # fmt: skip


class Uniform(Protocol):
    """Anything with .random() in [0, 1): random.Random or numpy's Generator."""

    def random(self) -> float: ...


def spoken(rng: Uniform) -> str:
    """One random sentence with the punctuation that shapes its melody, like "on monday, zoe cooks rice."."""
    text = _expand("sentence", rng)
    return text if text.endswith("?") else text + "."


def transcript(text: str) -> str:
    """The words alone, lower case with single spaces, as a recogniser should write them."""
    return re.sub(r"[^a-z' ]", "", text)


def sentence(rng: Uniform) -> str:
    """One random sentence: lower-case letters, apostrophes and single spaces."""
    return transcript(spoken(rng))


def _expand(symbol: str, rng: Uniform) -> str:
    alternatives = RULES[symbol]
    # only rng.random(): its stream is the same in every version of Python and numpy
    chosen = alternatives[int(rng.random() * len(alternatives))]
    return _SLOT.sub(lambda slot: _expand(slot.group(1), rng), chosen)


def _words() -> tuple[str, ...]:
    words: set[str] = set()
    for alternatives in RULES.values():
        for alternative in alternatives:
            words.update(transcript(_SLOT.sub(" ", alternative)).split())
    return tuple(sorted(words))


WORDS = _words()
"""Every word that the grammar can say, sorted."""
