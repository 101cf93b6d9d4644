"""From a spectrogram to the features of every block, and from these to logits.

In: waveforms [B, S] and their lengths. Out: `LayerFeatures`, the one value that probes, embed and
reports know of a model.

    features.py     LayerFeatures and the Encoder protocol
    identity.py     what tells one encoder from another
    patches.py      spectrogram to patch tokens and their 2-D positions
    rotary.py       positions that queries and keys are turned by
    attention.py    attention by the fastest kernel (Eq. 12)
    layers.py       gated attention, MLP, the post-norm block (Eq. 1-4, 12-14)
    needs.py        the memory that an encoder and its clips take
    encoder.py      waveform to the tokens of every block
    heads/          probes: features to logits (Eq. 8-11)
    losses.py       logits and labels to a number
    tagger.py       an encoder with a head
    input_stats.py  an encoder with a data set's statistics and window
    building.py     a config and tensors to an encoder, every size checked
    baselines.py    trivial models that a learned one has to beat: log-mel statistics, MFCCs, random projections
"""
