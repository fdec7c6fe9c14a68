"""Questions of notebook 02."""

from kdkit.lessons.exercises.questions import ask, no, yes

QUESTIONS = (
    ask(
        "What would happen if the loss were averaged over padded frames, too?",
        yes(
            "An utterance's loss would depend on its neighbours in the batch.",
            "How much padding there is depends on the longest utterance. And the student would learn silence that "
            "nobody recorded.",
        ),
        no(
            "Nothing would change: padded frames are zero for both networks.",
            "The *waveform* is zero there. Hidden states of padded frames are not, because of biases and norms.",
        ),
        no(
            "The loss would be larger by a constant, the same in every batch.",
            "It may be larger or smaller, and by another amount in every batch.",
        ),
    ),
    ask(
        "A student predicts twice the teacher's hidden state. What does the loss say?",
        yes(
            "The distance is large, the angle term at its minimum.",
            "Doubling changes the length and not the direction, and the cosine sees directions only.",
        ),
        no(
            "Both terms are large, because all numbers are wrong.",
            "The cosine of a vector with its double is 1, so the angle term is at its minimum.",
        ),
        no(
            "Both terms are 0, because the direction is right.",
            "The distance sees the length; and the angle term's minimum is log(1 + 1/e), not 0.",
        ),
    ),
    ask(
        "What would happen if the student's logits were divided by a much larger temperature than the teacher's?",
        yes(
            "Its distribution could not become as sharp as the teacher's.",
            "Cosines lie between -1 and 1. Over a large tau all logits are nearly equal, whatever the student does.",
        ),
        no(
            "It would learn faster, because its gradients are smoother.",
            "Smooth, yes, but it could never say that one id is nearly certain, as the teacher does.",
        ),
        no(
            "It would learn the same, if it is trained for long enough.",
            "With cosine logits the bound stays, however long it trains; with `linear` logits it would not.",
        ),
    ),
    ask(
        "Why KL(q || p), with q the teacher's distribution, and not KL(p || q)?",
        yes(
            "The student then has to cover every id that the teacher finds likely.",
            "The weights are the teacher's. The other way round it could pick one id and ignore the others.",
        ),
        no(
            "KL(p || q) can be negative, and a loss must not be less than zero.",
            "Both are 0 for equal distributions and above 0 otherwise.",
        ),
        no(
            "It makes no difference: KL is a distance, and distances are symmetric.",
            "It is not symmetric, so it is no distance in the strict sense. The exercise's check tells the two apart.",
        ),
    ),
    ask(
        "One student beats another by one point, with one seed each and 95 % intervals over utterances that do not "
        "overlap. What may you say?",
        yes(
            "*This* student is better on such speech.",
            "The interval speaks for more test speech. Another seed gives another student, so that a claim about the "
            "*method* takes more seeds.",
        ),
        no(
            "The *method* of this student is the better one.",
            "Seeds may differ by as much as methods do; the study trains several for this reason.",
        ),
        no(
            "Nothing: one seed for each is no evidence.",
            "About these two networks something is known: more test speech would probably say the same.",
        ),
    ),
)
