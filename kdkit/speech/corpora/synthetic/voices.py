"""The speakers of the synthetic corpus: who is heard in training, and who never is.

A speaker is an eSpeak voice variant, a vocal-tract length (all formants scaled together, by resampling), a pitch and a
speaking rate. Variants differ in formants, breath, roughness and melody; several tract lengths of each variant give the
training set many distinct voices: about a hundred in version 1 (SPEAKERS), hundreds in version 2 (CROWD). No variant of
dev, test-clean or test-other is heard in training, and eSpeak's twins of the test variants (aunty of f4, robert of rob)
are kept from it too. Whispers, croaks, robots and voices that clip are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

MAIN_ACCENT = "en-us"
OTHER_ACCENTS = ("en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029", "en-us-nyc")

TRAIN_VARIANTS = (
    "f1", "f2", "f3", "anika", "Alicia", "shelby", "Andrea",  # women
    "m1", "m3", "m5", "m6", "adam", "Alex", "Andy", "benjamin", "david", "ed", "Gene", "gustave",
    "iven2", "iven3", "john", "klatt3", "klatt4", "Marco", "marcelo", "max", "mike2", "norbert",
    "quincy", "Reed", "sandro",
)  # fmt: skip
DEV_VARIANTS = ("f5", "Annie", "victor", "Mike", "edward2")
TEST_CLEAN_VARIANTS = (
    "f4", "linda", "steph3", "belinda", "steph", "rob", "Nguyen", "michel", "pablo", "paul", "edward", "m4",
    "Mario", "Storm",
)  # fmt: skip
TEST_OTHER_VARIANTS = (
    "aunty", "steph2", "grandma", "robert", "m7", "m8", "Hugo", "miguel", "Henrique", "boris",
)  # fmt: skip


@dataclass(frozen=True)
class Speaker:
    """One voice. `tract` scales all frequencies (above 1 is a shorter vocal tract), `pitch` is eSpeak's 0 to
    100, `rate` is in words per minute.
    """

    id: str
    variant: str
    accent: str
    tract: float
    pitch: int
    rate: int

    @property
    def voice(self) -> str:
        """eSpeak's name of accent and variant."""
        return f"{self.accent}+{self.variant}"


def _speakers(
    variants: tuple[str, ...], tracts: tuple[float, ...], accents: tuple[str, ...]
) -> tuple[Speaker, ...]:
    """Every variant with every tract length; pitch, rate and accent walk through their ranges at different
    strides, so that they do not depend on each other.
    """
    speakers = []
    for v, variant in enumerate(variants):
        for t, tract in enumerate(tracts):
            n = v * len(tracts) + t
            accent = accents[n % len(accents)]
            speakers.append(
                Speaker(
                    id=f"{variant}-{t}" if len(accents) == 1 else f"{variant}-{accent}",
                    variant=variant,
                    accent=accent,
                    tract=round(tract + 0.004 * (n * 7 % 11 - 5), 3),
                    pitch=34 + n * 13 % 33,
                    rate=138 + n * 17 % 37,
                )
            )
    return tuple(speakers)


_TRAIN = _speakers(TRAIN_VARIANTS, (0.92, 1.0, 1.09), (MAIN_ACCENT,))

SPEAKERS: dict[str, tuple[Speaker, ...]] = {
    "unlabelled": _TRAIN,
    "train": _TRAIN,
    "dev": _speakers(DEV_VARIANTS, (0.97, 1.04), (MAIN_ACCENT,)),
    "test-clean": _speakers(TEST_CLEAN_VARIANTS, (1.0,), (MAIN_ACCENT,)),
    "test-other": _speakers(TEST_OTHER_VARIANTS, (0.96, 1.05), OTHER_ACCENTS),
}
"""The speakers of each split. Training and unlabelled speech share theirs."""


def _crowd(variants: tuple[str, ...], tracts: int, accents: tuple[str, ...]) -> tuple[Speaker, ...]:
    """Every variant with `tracts` vocal-tract lengths from 0.86 to 1.16; pitch and rate spread wider than above."""
    speakers = []
    for v, variant in enumerate(variants):
        for t in range(tracts):
            n = v * tracts + t
            accent = accents[(n + v) % len(accents)]
            place = (t + 0.1 + 0.8 * (v * 7 % 11) / 11) / tracts  # other lengths for each variant
            speakers.append(
                Speaker(
                    id=f"{variant}-{t}" if accent == MAIN_ACCENT else f"{variant}-{t}-{accent}",
                    variant=variant,
                    accent=accent,
                    tract=round(0.86 + 0.3 * place, 3),
                    pitch=24 + n * 23 % 53,
                    rate=120 + n * 29 % 59,
                )
            )
    return tuple(speakers)


_MIXED = tuple(accent for other in OTHER_ACCENTS for accent in (MAIN_ACCENT, other))
_HUNDREDS = _crowd(TRAIN_VARIANTS, len(_MIXED), _MIXED)
_OF_MAIN_ACCENT = tuple(speaker for speaker in _HUNDREDS if speaker.accent == MAIN_ACCENT)

CROWD: dict[str, tuple[Speaker, ...]] = {
    "unlabelled": _HUNDREDS,
    "train": _OF_MAIN_ACCENT,
    "dev": _crowd(DEV_VARIANTS, 4, (MAIN_ACCENT,)),
    "dev-other": _crowd(DEV_VARIANTS, 6, OTHER_ACCENTS),
    "test-clean": _crowd(TEST_CLEAN_VARIANTS, 3, (MAIN_ACCENT,)),
    "test-other": _crowd(TEST_OTHER_VARIANTS, 6, OTHER_ACCENTS),
}
"""The speakers of each split of version 2."""

_FIRST = ("anika", "m6", "f1", "Alex")  # two women, two men
_VARIANTS = (*_FIRST, *(variant for variant in TRAIN_VARIANTS if variant not in _FIRST))[:24]
_OWN = {variant: [s for s in _OF_MAIN_ACCENT if s.variant == variant] for variant in _VARIANTS}

FEW: tuple[Speaker, ...] = tuple(
    _OWN[name][(3 + 5 * n) % len(_OWN[name])] for n, name in enumerate(_VARIANTS)
)
"""Who speaks the labelled speech of version 2 first: four the first minutes, all 24 the first hour."""
