"""Should a picture be fetched or drawn? From people's votes to a trained head; see scripts/train_decision_model.py."""
