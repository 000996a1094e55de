"""A bank of Gaussian experts in closed form; nothing in it is learnt or fitted."""
