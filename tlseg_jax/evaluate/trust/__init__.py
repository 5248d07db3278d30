"""How far a prediction is to be believed when nobody has drawn the truth."""
