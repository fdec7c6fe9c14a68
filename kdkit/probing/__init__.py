"""What does each layer know? Of a teacher or a student, on voices that were not trained on.

* :mod:`~kdkit.probing.phones`, :mod:`~kdkit.probing.speakers`: linear probes;
* :mod:`~kdkit.probing.clusters`: cluster ids against phones, and the codebook at several temperatures;
* :mod:`~kdkit.probing.cka`: layers against layers, of one model or of two;
* :mod:`~kdkit.probing.change`: how much each layer changes its input;
* :mod:`~kdkit.probing.attention`: where each head looks;
* :mod:`~kdkit.probing.survey`: all of it for a model, as ``kdkit probe`` shows it.

The measures run on two samples of frames (:mod:`kdkit.probing.activations`), one of training voices and one of unseen
voices.
"""

from kdkit.common.statistics import unbiased_share
from kdkit.probing.attention import (
    attention_distance,
    attention_reach,
    attention_weights,
    even_distance,
    head_reach,
)
from kdkit.probing.change import layer_change, layer_changes
from kdkit.probing.cka import cka_intervals, cka_jackknife, cka_map, linear_cka
from kdkit.probing.clusters import (
    ClusterScore,
    cluster_purity,
    cluster_score,
    codebook_usage,
    layer_pnmi,
    phone_purity,
    pnmi,
    pnmi_interval,
)
from kdkit.probing.phones import LayerScore, PhoneProbe, last_layer, linear_probe, phone_probe, probe_layers
from kdkit.probing.speakers import probe_speakers
from kdkit.probing.survey import Survey, held_out, survey

__all__ = [
    "ClusterScore",
    "LayerScore",
    "PhoneProbe",
    "Survey",
    "attention_distance",
    "attention_reach",
    "attention_weights",
    "cka_intervals",
    "cka_jackknife",
    "cka_map",
    "cluster_purity",
    "cluster_score",
    "codebook_usage",
    "even_distance",
    "head_reach",
    "held_out",
    "last_layer",
    "layer_change",
    "layer_changes",
    "layer_pnmi",
    "linear_cka",
    "linear_probe",
    "phone_probe",
    "phone_purity",
    "pnmi",
    "pnmi_interval",
    "probe_layers",
    "probe_speakers",
    "survey",
    "unbiased_share",
]
