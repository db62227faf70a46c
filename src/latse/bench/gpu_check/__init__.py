"""`latse check-gpu`: what whoever has a GPU runs once, so that its page says what works there."""
