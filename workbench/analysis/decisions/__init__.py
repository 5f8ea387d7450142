"""What to decide by: where bits go and errors come from, what sizes cost, and the card that records it."""
