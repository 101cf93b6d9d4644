"""Anything to an encoder, and an encoder to anything.

In: what `--model` may name. Out: an `Encoder`; and the other way, folders and files that other programs load.

    card.py         the model card of a release
    hf_hub.py       releases on the Hugging Face Hub
    release.py      release folders and run folders: save and load
    adapters/       Hugging Face models, and a user's own class
    convert/        weights of BAT, EAT, SSLAM, Audio-MAE and BEATs
    load.py         whatever `--model` names to an encoder
    export/         ONNX files and folders for transformers
    integrations/   our encoders as HEAR, X-ARES, s3prl and MTEB expect them
    doctor/         facts about an installation, a checkpoint file or an encoder
"""
