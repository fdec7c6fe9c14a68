"""Questions of notebook 04."""

from kdkit.lessons.exercises.questions import ask, no, yes

QUESTIONS = (
    ask(
        "What would happen if greedy decoding dropped blanks first and merged repeats afterwards?",
        yes(
            "Words with a double letter could not be written.",
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
            "It predicts the blank in all frames, which passes.",
            "Blank is right in most frames, the safest guess while letters cannot be told apart yet.",
        ),
        no(
            "The learning rate is too large and has to be lowered.",
            "It may be, if the blanks stay for long; at the beginning they are normal.",
        ),
        no(
            "The CTC head is not connected to the optimiser.",
            "Then the loss would not fall. It does: from random letters to blanks is already an improvement.",
        ),
    ),
    ask(
        "A hypothesis has 12 words, its reference 8, and 10 edits turn one into the other. The WER is",
        yes(
            "125 %",
            "Errors over *reference* words, 10 / 8. With many insertions it is above 100 %.",
        ),
        no("83 %", "That divides by the words of the hypothesis: 10 / 12."),
        no("100 %", "It is not bounded by 100 %: nothing limits the number of insertions."),
        no("80 %", "That is 8 / 10, reference words over errors: upside down."),
    ),
    ask(
        "A change in WER has the 95 % interval -1.2 to +0.4 points. What may you say?",
        yes(
            "Inconclusive: this test set cannot tell.",
            "0 lies inside. More test speech would make the interval narrower, if the question matters.",
        ),
        no(
            "It helps: most of the interval is below 0.",
            "Most is not all. If such intervals counted as success, chance would often be reported as a finding.",
        ),
        no(
            "It makes no difference: 0 lies inside.",
            "Not that either: -1.2 points would be worth having, and it is inside as well.",
        ),
    ),
    ask(
        "What would happen if the weights of the language model were chosen on the test set?",
        yes(
            "The WER would look lower than it is on other speech.",
            "The choice fits the accidents of that set. Hence every choice is made on dev speech, of other voices.",
        ),
        no(
            "Nothing would change: two numbers cannot be overfitted.",
            "They can, a little; and whoever tries many settings picks the luckiest one.",
        ),
        no(
            "The recogniser would hear the sounds of that set better.",
            "The weights change which words are written, not the probabilities of the letters.",
        ),
    ),
)
