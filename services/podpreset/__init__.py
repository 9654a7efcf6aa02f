"""A mutating admission webhook that gives pods their proxy settings, trusted certificates and other presets."""
