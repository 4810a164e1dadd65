"""The pure-torch backend: what each operator means, and fast variants for any device."""
