"""Files of a C package with places for names: `${p}` is the prefix, `${P}` its capitals."""
