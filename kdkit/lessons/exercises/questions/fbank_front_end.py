"""Questions of notebook 03."""

from kdkit.lessons.exercises.questions import ask, no, yes

QUESTIONS = (
    ask(
        "What would happen if Fbank windows were *centred*, as in most libraries, instead of cut only where they fit?",
        yes(
            "Frame counts would differ from the CNN's, and frame t would stand for another moment.",
            "Then the student's frame and the teacher's frame of the same number are not about the same sound.",
        ),
        no(
            "Nothing but a little more silence at the ends.",
            "The reflected ends add frames, and all frames move by half a window.",
        ),
        no(
            "The mel filters would have to be computed anew.",
            "They depend on the size of the spectrum and the sampling rate only.",
        ),
    ),
    ask(
        "A recording at 8,000 Hz is resampled to 16,000 Hz. What will its Fbank show?",
        yes(
            "Filters above 4,000 Hz that are nearly empty, in every frame.",
            "Resampling adds samples, but no sound: what was above half of the old rate was never recorded.",
        ),
        no(
            "The same as a recording made at 16,000 Hz.",
            "*s* and *f* live above 4,000 Hz; their noise is gone for good.",
        ),
        no(
            "Half as many frames.",
            "Frames are counted in time, 100 a second, at whatever rate the sound was recorded.",
        ),
    ),
    ask(
        "HuBERT's CNN has a group norm over time. What happens when an utterance is batched with a longer one?",
        yes(
            "Its hidden states change everywhere, unless the statistics run over real frames only.",
            "Zeros enter mean and variance of every channel, and so every frame. An attention mask comes too late.",
        ),
        no(
            "Only its last frames change.",
            "That would be so for a convolution, which is local. A mean over time reaches every frame.",
        ),
        no(
            "Nothing: the attention mask hides the padding.",
            "The mask works in the Transformer; the norm stands before it, in the first convolution.",
        ),
    ),
    ask(
        "At full size the Fbank student saves about a sixth of the parameters, but far more of the time. Why?",
        yes(
            "The CNN's few weights work at up to 16,000 positions a second, the encoder at 50.",
            "Work is weights times positions. A small part that is used often costs more than a large one.",
        ),
        no(
            "Fbank needs no computing.",
            "It takes a Fourier transform and a matrix of triangles for each frame: little, but not nothing.",
        ),
        no(
            "Because its encoder is smaller.",
            "Both encoders are equal to the last parameter; the table in this notebook counts them.",
        ),
    ),
    ask(
        "What would happen if front-end adaptation were left out?",
        yes(
            "The encoder would learn its first steps from a front-end that says nothing yet.",
            "It may still get there. Whether adaptation is worth its steps is a question for seeds, not for a picture.",
        ),
        no(
            "Training would not work at all.",
            "It works: the gradient reaches the front-end through the encoder, too. The shipped study has that row.",
        ),
        no(
            "The student would keep the teacher's CNN.",
            "The structure does not change; what changes is which weights learn in the first steps.",
        ),
    ),
)
