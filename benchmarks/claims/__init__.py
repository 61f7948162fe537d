"""What the documentation says of one encoder against another, tested on the records."""
