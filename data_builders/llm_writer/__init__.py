"""Open questions and answers that a language model writes about what is known of a clip.

`facts` says what is known; `recipes` ask for rows in the versioned prompts of `data_builders/prompts`; `client` asks an
endpoint with limits, a budget and a journal; `writer` runs it all and writes records in the order of the facts.
"""
