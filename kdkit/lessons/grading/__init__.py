"""Grading of a class: learners' functions out of their notebooks, through the kit's own checks.

What a learner wrote runs in a process of its own (:mod:`.worker`), which is confined as far as the system allows
(:mod:`.confine`), and only values come back from it (:mod:`.wire`). The cases, the comparison and the verdict stay in
the process of whoever grades (:mod:`.judge`), so that no code of a learner can reach them.

    submissions -> answers (source code) -> judge <-> worker -> rows of a CSV -> page
"""
