//! Owner references, conditions and other parts of metadata.
