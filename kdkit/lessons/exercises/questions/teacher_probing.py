"""Questions of notebook 01."""

from kdkit.lessons.exercises.questions import ask, no, yes

QUESTIONS = (
    ask(
        "A *linear* probe reads phones from layer 8 better than from layer 2. What does that show?",
        yes(
            "Layer 8 holds the phone in a form that is linearly readable.",
            "That is exactly what was measured: what a classifier that can hardly compute finds ready.",
        ),
        no(
            "Layer 2 holds less information about the phone than layer 8.",
            "All layers are computed from layer 2, so it holds whatever they hold; only in another form.",
        ),
        no(
            "The model itself uses layer 8 when it has to tell phones apart.",
            "A probe says what *can* be read. Whether the model uses it, only a change to the model would show.",
        ),
        no(
            "Layer 8 was trained with phone labels and layer 2 was not.",
            "Nobody gave HuBERT a phone label; only the probe has seen them.",
        ),
    ),
    ask(
        "What would happen if a deep network took the place of the linear probe?",
        yes(
            "All curves would rise and come closer together.",
            "A deep network can work phones out of almost anything, even the waveform: it would measure itself.",
        ),
        no(
            "All curves would rise by the same few points.",
            "It helps poor layers most: what they hold in a tangled form, it can untangle.",
        ),
        no(
            "Nothing would change: the problem is convex.",
            "Only the linear probe's problem is convex; a deep network's result depends on seed and training.",
        ),
    ),
    ask(
        "What would happen if the test frames came from voices that the probe was trained on?",
        yes(
            "Accuracies would be higher, most of all where the voice is heard.",
            "Frames of one voice are alike. A probe could then do well by knowing voices instead of phones.",
        ),
        no(
            "Accuracies would stay the same: a phone is a phone in every voice.",
            "The same phone differs more between voices than within one, so known voices are easier.",
        ),
        no(
            "Accuracies would be lower, as there are fewer voices to learn from.",
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
            "Each frame would find all ids equally likely.",
            "That is the other end: a large tau makes all logits nearly 0.",
        ),
        no(
            "It would stay: softmax does not depend on scale.",
            "It does not depend on a constant that is *added*; a factor changes how sharp it is.",
        ),
    ),
    ask(
        "Two layers have a linear CKA of nearly 1. Which conclusion is safe?",
        yes(
            "They hold much the same, up to rotation, shift and scale.",
            "That is what CKA is blind to, and why such layers teach a student little that is new.",
        ),
        no(
            "Their vectors are nearly equal, number by number, in each frame.",
            "CKA ignores rotations and scale: dimension 5 of one may be a mixture of many of the other.",
        ),
        no(
            "A linear probe reads phones equally well from both of them.",
            "Likely, but not certain: directions with little variance count little in CKA and may hold phones.",
        ),
    ),
)
