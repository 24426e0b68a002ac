"""The domain of R1flow: problems, rewards, curation, sampling, training, evaluation, registry.

Nothing in here knows Prefect or Streamlit; ``flows`` and ``dashboard`` sit above.
"""
