"""What a person uses in a browser: the page and the viewer."""
