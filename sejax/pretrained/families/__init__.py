"""The families of pretrained models, each a `sejax.pretrained.base.Backbone`, and the layers that they share."""
