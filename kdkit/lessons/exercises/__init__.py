"""Exercises of the notebooks: checks that say what is right and what to look at, a quiz, solutions folded away.

    regression = exercises.check_regression_loss(regression)    # the learner's when right, the kit's own when not
    exercises.quiz("02_distillation")

What is named here is imported when it is first used: the report fills in solutions and needs no torch for it.
"""

from importlib import import_module

_PLACES = {
    "check_frames_of": "probing",
    "check_cluster_logits": "probing",
    "check_best_layer": "probing",
    "check_phone_information": "probing",
    "check_alignment": "probing",
    "check_regression_loss": "losses",
    "check_terms": "distilling",
    "check_discriminative_loss": "losses",
    "check_ids_in_play": "distilling",
    "check_spread_pairs": "distilling",
    "check_neighbours": "losses",
    "check_mel_filters": "features",
    "check_conv_frames": "features",
    "check_saving": "features",
    "check_staged_loss": "features",
    "check_write_out": "ctc",
    "check_frames_needed": "ctc",
    "check_edits": "word_errors",
    "check_word_error_rate": "word_errors",
    "check_verdict": "word_errors",
    "quiz": "quizzes",
    "fill_solutions": "solutions",
}
__all__ = list(_PLACES)


def __getattr__(name: str):
    if name in _PLACES:
        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
