"""The small world of the ``tiny`` recipe: a language and a corpus with habits.

A base model of under a million parameters can only show what DeepSeek-R1-Zero showed if it has met
the habits that reinforcement learning selects from: trying, checking, going on, giving up, changing
language. This package writes documents that mix these habits; ``services.pretraining`` trains the
bundled models on them.
"""
