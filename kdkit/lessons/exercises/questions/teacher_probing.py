"""Questions of notebook 01."""

from kdkit.lessons.exercises.questions import ask, no, yes

QUESTIONS = (
    ask(
        "A *linear* probe reads phones from layer 8 better than from layer 2. What does that show?",
        yes(
            "Layer 8 holds the phone in a form that one matrix multiplication can read.",
            "That is exactly what was measured: what lies ready, for a classifier that can hardly compute.",
        ),
        no(
            "Layer 2 holds less information about the phone.",
            "All layers are computed from layer 2, so it holds whatever they hold; only in another form.",
        ),
        no(
            "The model uses layer 8 to recognise phones.",
            "A probe says what *can* be read. Whether the model uses it would need a change to the model.",
        ),
        no(
            "Layer 8 was trained with phone labels.",
            "Nobody gave HuBERT a phone label; only the probe has seen them.",
        ),
    ),
    ask(
        "What would happen if a deep network took the place of the linear probe?",
        yes(
            "All curves would rise and come closer together, the waveform's too.",
            "A deep network can work phones out of almost anything, so it would measure itself, not the layer.",
        ),
        no(
            "The order of the layers would stay, all of them just a little higher.",
            "It helps poor layers most: what they hold in a tangled form, it can untangle.",
        ),
        no(
            "Nothing: the problem is convex.",
            "Only the linear probe's problem is convex; a deep network's result depends on seed and training.",
        ),
    ),
    ask(
        "What would happen if the test frames came from voices that the probe was trained on?",
        yes(
            "Accuracies would be higher, most of all of features that hear the voice.",
            "Frames of one voice are alike. A probe could then do well by knowing voices instead of phones.",
        ),
        no(
            "Accuracies would stay: a phone is a phone.",
            "The same phone differs more between voices than within one, so known voices are easier.",
        ),
        no(
            "Accuracies would be lower, because there are fewer voices.",
            "Fewer voices in the test make the interval wider, but known ones are easier, not harder.",
        ),
    ),
    ask(
        "What would happen to the codebook's distribution if the temperature went towards 0?",
        yes(
            "Each frame would put all its weight on one id.",
            "Dividing by a small tau blows up every difference between cosines, and softmax takes the largest.",
        ),
        no(
            "All ids would become equally likely.",
            "That is the other end: a large tau makes all logits nearly 0.",
        ),
        no(
            "Nothing: softmax does not care about scale.",
            "It does not care about a constant that is *added*; a factor changes how sharp it is.",
        ),
    ),
    ask(
        "Two layers have a linear CKA of nearly 1. Which conclusion is safe?",
        yes(
            "They hold much the same, up to rotation, shift and scale; a student needs one of them.",
            "That is what CKA is blind to, and why alike layers teach a student little that is new.",
        ),
        no(
            "Their vectors are nearly equal, number by number.",
            "CKA ignores rotations and scale: dimension 5 of one may be a mixture of many of the other.",
        ),
        no(
            "Both read phones equally well.",
            "Likely, but not certain: directions with little variance count little in CKA and may hold phones.",
        ),
    ),
)
