//! Bad input: refused with a clear answer, and nothing changed.
