"""Questions of notebook 02."""

from kdkit.lessons.exercises.questions import ask, no, yes

QUESTIONS = (
    ask(
        "What would happen if the loss were averaged over padded frames, too?",
        yes(
            "The same utterance would count differently, depending on its neighbours in the batch.",
            "How much padding there is depends on the longest utterance. And the student would learn silence that "
            "nobody recorded.",
        ),
        no(
            "Nothing: padded frames are zero on both sides.",
            "The *waveform* is zero there. Hidden states of padded frames are not: biases and norms see to that.",
        ),
        no(
            "The loss would be larger by a constant.",
            "It may be larger or smaller, and by another amount in every batch.",
        ),
    ),
    ask(
        "A student predicts twice the teacher's hidden state. What does the loss say?",
        yes(
            "The distance term is large, the angle term as low as it can be.",
            "Doubling changes the length and not the direction; cosine sees directions only.",
        ),
        no(
            "Both terms are large.",
            "The cosine of a vector with its double is 1, so the angle term is at its floor.",
        ),
        no(
            "Both terms are 0, because the direction is right.",
            "The distance sees the length; and the angle term's floor is log(1 + 1/e), not 0.",
        ),
    ),
    ask(
        "What would happen if the student's logits were divided by a much larger temperature than the teacher's?",
        yes(
            "Its cosines could not become sharp enough to follow the teacher.",
            "Cosines lie between -1 and 1. Over a large tau all logits are nearly equal, whatever the student does.",
        ),
        no(
            "It would learn faster, since its gradients are smoother.",
            "Smooth, yes, but there is no way to say that one id is nearly certain, which the teacher says.",
        ),
        no(
            "Nothing, if it trains long enough.",
            "With cosine logits the bound stays, however long it trains; with `linear` logits it would not.",
        ),
    ),
    ask(
        "Why KL(q || p), with q the teacher's distribution, and not KL(p || q)?",
        yes(
            "The student then has to cover every id that the teacher finds likely.",
            "The weights are the teacher's. The other way round it could pick one id and be content.",
        ),
        no(
            "Because only that one is never negative.",
            "Both are 0 for equal distributions and above 0 otherwise.",
        ),
        no(
            "It makes no difference: KL is a distance.",
            "It is not symmetric, so it is no distance in the strict sense. The exercise's check tells the two apart.",
        ),
    ),
    ask(
        "One student beats another by one point, with one seed each and 95 % intervals over utterances that do not "
        "overlap. What may you say?",
        yes(
            "*This* student is better on such speech; whether its *method* is, takes more seeds.",
            "The interval speaks for more test speech. Another seed gives another student.",
        ),
        no(
            "Its method is better.",
            "Seeds may differ by as much as methods do; the study trains several for this reason.",
        ),
        no(
            "Nothing at all.",
            "About these two networks something is known: more test speech would probably say the same.",
        ),
    ),
)
