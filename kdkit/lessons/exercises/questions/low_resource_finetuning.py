"""Questions of notebook 04."""

from kdkit.lessons.exercises.questions import ask, no, yes

QUESTIONS = (
    ask(
        "What would happen if greedy decoding dropped blanks first and merged repeats afterwards?",
        yes(
            "No word with a double letter could ever be written.",
            "`l - l` becomes `l l` when the blank goes first, and then one l. The blank is there to keep them apart.",
        ),
        no(
            "Nothing: both steps only take symbols away.",
            "The order matters: a blank between two equal letters says that there are two.",
        ),
        no(
            "Every letter would be written several times.",
            "Repeats are merged in either order; it is *too much* that is merged.",
        ),
    ),
    ask(
        "Early in fine-tuning a recogniser writes nothing at all. What is going on?",
        yes(
            "It says blank everywhere, the safest guess while letters are not told apart.",
            "Blank is right in most frames. It comes before the first letters, and passes if training goes well.",
        ),
        no(
            "The learning rate is certainly wrong.",
            "It may be, if the blanks stay for long; at the beginning they are normal.",
        ),
        no(
            "The CTC head is not connected.",
            "Then the loss would not fall. It does: from babble to blanks is already an improvement.",
        ),
    ),
    ask(
        "A hypothesis has 12 words, its reference 8, and 10 edits turn one into the other. The WER is",
        yes(
            "125 %",
            "Errors over *reference* words, 10 / 8. With many insertions it is above 100 %.",
        ),
        no("83 %", "That divides by the words of the hypothesis: 10 / 12."),
        no("100 %, as it cannot be more", "It can: nothing bounds the number of insertions."),
        no("80 %", "That is 8 / 10, reference words over errors: upside down."),
    ),
    ask(
        "A change in WER has the 95 % interval -1.2 to +0.4 points. What may you say?",
        yes(
            "Inconclusive: this test set cannot tell whether it helps.",
            "0 lies inside. More test speech would make the interval narrower, if the question matters.",
        ),
        no(
            "It helps, most of the interval is below 0.",
            "Most is not all. If such intervals counted as success, chance would be celebrated often.",
        ),
        no(
            "It makes no difference.",
            "Not that either: -1.2 points would be worth having, and it is inside as well.",
        ),
    ),
    ask(
        "What would happen if the weights of the language model were chosen on the test set?",
        yes(
            "The WER would look better than it will be on other speech.",
            "The choice fits the accidents of that set. Hence dev speech, of other voices, for every choice.",
        ),
        no(
            "Nothing: two numbers cannot overfit.",
            "They can, a little; and whoever tries many settings picks the luckiest one.",
        ),
        no(
            "The recogniser would hear better.",
            "The weights change what is written for what was heard, never the hearing.",
        ),
    ),
)
