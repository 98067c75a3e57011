//! The ReplicaSet controller: keeps as many pods as a set asks for.

mod decide;
