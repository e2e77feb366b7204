"""The compiled native libraries (built from native/ by setup.py); nothing in Python lives here."""
