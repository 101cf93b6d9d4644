"""How well frozen features tell what is said: a recogniser of characters on them, by connectionist temporal
classification (CTC; Graves et al., ICML 2006).

In: features of utterances, and their texts. Out: recognised texts, word and character error rates.

    alphabet.py   texts to the numbers of their characters, and back
    head.py       features of all blocks to log-probabilities of characters, frame by frame
    decoding.py   log-probabilities of frames to texts
    training.py   the head trained on features, and tested
"""
