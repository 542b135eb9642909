"""How good the methods are, measured: on pictures, and against posteriors that are known exactly."""
