"""Teachers: frozen self-supervised speech models of many formats, loaded as one kind of object.

    from kdkit import load_teacher
    teacher = load_teacher("tiny")         # or "HUBERT_BASE", "hubert_base_ls960.pt", "facebook/hubert-base-ls960"
    teacher.hidden(waves, lengths).hidden  # H^0 .. H^L

**Layers.** H^0 is the input of Transformer layer 1: after projection, positional convolution and, in a post-norm model,
LayerNorm. H^l is the output of layer l, after its residual and (post-norm) its LayerNorm. In a pre-norm model the last
state includes the encoder's final LayerNorm, like ``last_hidden_state`` of transformers, whose
``hidden_states`` are the others; torchaudio's ``extract_features`` starts at H^1 and leaves that LayerNorm out.
"""

from kdkit.teachers.load import load_teacher
from kdkit.teachers.teacher import ASSETS, Teacher, fingerprint, hidden_states, load_model, origin, save_model

__all__ = [
    "ASSETS",
    "Teacher",
    "fingerprint",
    "hidden_states",
    "load_model",
    "load_teacher",
    "origin",
    "save_model",
]
