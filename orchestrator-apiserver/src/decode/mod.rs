//! From bytes to a tree that holds only what the schema knows.

mod json;
mod schema;
mod strict;

pub(crate) use schema::{FieldSchema, MergeStrategy, Message, Parts, Schema, Shape, Type, definition_name};
pub(crate) use strict::{Findings, prune};

pub(crate) use json::{fits, parse};
