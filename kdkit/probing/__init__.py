"""What each layer of a teacher or a student knows, measured on unseen voices.

* :mod:`~kdkit.probing.phones`, :mod:`~kdkit.probing.speakers`: linear probes;
* :mod:`~kdkit.probing.clusters`: agreement of cluster ids with phones, and the codebook at several temperatures;
* :mod:`~kdkit.probing.cka`: similarity of layers, of one model or two;
* :mod:`~kdkit.probing.change`: how much each layer changes its input;
* :mod:`~kdkit.probing.attention`: attention weights of each head;
* :mod:`~kdkit.probing.survey`: all measures of a model, for ``kdkit probe``.

The measures use samples of frames (:mod:`kdkit.probing.activations`) of training voices and of unseen voices.
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
from kdkit.probing.cka import cka_intervals, cka_jackknife, cka_map, compare_cka, linear_cka
from kdkit.probing.clusters import (
    ClusterScore,
    cluster_purity,
    cluster_score,
    codebook_usage,
    compare_ids,
    layer_ids,
    layer_pnmi,
    phone_purity,
    pnmi,
    pnmi_interval,
)
from kdkit.probing.phones import (
    LayerScore,
    PhoneProbe,
    compare_layers,
    compare_probes,
    last_layer,
    linear_probe,
    phone_probe,
    probe_layers,
)
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
    "compare_cka",
    "compare_ids",
    "compare_layers",
    "compare_probes",
    "even_distance",
    "head_reach",
    "held_out",
    "last_layer",
    "layer_change",
    "layer_changes",
    "layer_ids",
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
