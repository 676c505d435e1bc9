"""The joint model and its training in PyTorch, fold by fold: the other side of `tools/bench.py train`.

The network is `sejax.models.joint`, the step is `sejax.engine.step` with constant weights, and both are written as is
usual in PyTorch. Tests require equal outputs, gradients and updates. The corpus comes as numpy arrays in the layout of
`sejax.data.types.Data`.

Two choices were measured on a CPU. A packed sequence takes ten times as long as oneDNN's LSTM, so an extra input column
keeps padding out of the recurrence (`layers.Recurrence`). PyTorch's dropout draws one number after the other, so eight
are drawn at once (`layers.keep_mask`).
"""
