//! The StatefulSet controller: pods with an identity, one after the other.

mod decide;
mod identity;
mod revisions;
