//! Contract suites, fault wrappers and strategies for every seam.
