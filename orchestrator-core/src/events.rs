//! Events: what happened to an object, written for people.
