"""Questions of notebook 03."""

from kdkit.lessons.exercises.questions import ask, no, yes

QUESTIONS = (
    ask(
        "What would happen if Fbank windows were *centred*, as in most libraries, instead of cut only where they fit?",
        yes(
            "Frame t would stand for another moment than the CNN's frame t.",
            "There would also be more frames. Student and teacher would be compared on different sounds.",
        ),
        no(
            "Only a little silence would be added at both ends of a recording.",
            "The reflected ends add frames, and all frames move by half a window.",
        ),
        no(
            "The mel filters would have to be computed for another spectrum.",
            "They depend on the size of the spectrum and the sampling rate only.",
        ),
    ),
    ask(
        "A recording at 8,000 Hz is resampled to 16,000 Hz. What will its Fbank show?",
        yes(
            "Filters above 4,000 Hz that are nearly empty.",
            "Resampling adds samples, but no sound: what was above half of the old rate was never recorded.",
        ),
        no(
            "The same as a recording made at 16,000 Hz.",
            "*s* and *f* have their energy above 4,000 Hz, and it is gone for good.",
        ),
        no(
            "Half as many frames as one made at 16,000 Hz.",
            "Frames are counted in time, 100 a second, at whatever rate the sound was recorded.",
        ),
    ),
    ask(
        "HuBERT's CNN has a group norm over time. What happens when an utterance is batched with a longer one?",
        yes(
            "All its hidden states change, unless padding is left out of the norm.",
            "Zeros enter mean and variance of every channel, and so every frame. An attention mask comes too late.",
        ),
        no(
            "Its last few frames change, because a convolution is a local operation.",
            "A convolution is local, but a mean over time reaches every frame.",
        ),
        no(
            "Nothing changes, because the attention mask hides all of the padding.",
            "The mask works in the Transformer; the norm stands before it, in the first convolution.",
        ),
    ),
    ask(
        "At full size the Fbank student saves about a sixth of the parameters, but far more of the time. Why?",
        yes(
            "The CNN's few weights are used at many more positions.",
            "Work is weights times positions: up to 3,200 positions a second in the CNN, 50 in the encoder.",
        ),
        no(
            "Fbank is a fixed formula, which needs no computing.",
            "It takes a Fourier transform and a matrix of triangles for each frame: little, but not nothing.",
        ),
        no(
            "Its encoder has become smaller and faster as well.",
            "Both encoders are equal to the last parameter; the table in this notebook counts them.",
        ),
    ),
    ask(
        "What would happen if front-end adaptation were left out?",
        yes(
            "The encoder would start on features that say nothing yet.",
            "It may still get there. Whether adaptation is worth its steps is a question for seeds, not for a picture.",
        ),
        no(
            "Training would diverge, or the loss would stay where it is.",
            "It works: the gradient reaches the front-end through the encoder, too. The shipped study has that row.",
        ),
        no(
            "The student would keep the CNN of its teacher for good.",
            "The structure does not change; what changes is which weights learn in the first steps.",
        ),
    ),
)
