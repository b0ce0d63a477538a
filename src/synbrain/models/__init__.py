"""Networks, posteriors, losses and the other parts a model is made of."""
