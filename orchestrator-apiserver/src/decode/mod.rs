//! From bytes to a tree that holds only what the schema knows.

mod base64;
mod json;
mod schema;
mod settle;
mod strict;
mod structural;
mod syntax;

pub(crate) use schema::{FieldSchema, MergeStrategy, Message, Parts, Schema, Shape, Type, definition_name};
pub(crate) use strict::{Findings, WrongType, go_kind, prune};

pub(crate) use json::{fits, parse};
pub(crate) use settle::settle;
pub(crate) use structural::prune_structural;
pub(crate) use syntax::complaint;
