//! Bad input: a clear error that names it, and nothing changed.
