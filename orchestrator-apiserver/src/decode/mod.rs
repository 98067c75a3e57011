//! From bytes to a tree that holds only what the schema knows.

mod base64;
mod duration;
mod json;
mod path;
mod schema;
mod settle;
mod strict;
mod structural;
mod syntax;
mod time;

pub(crate) use schema::{FieldSchema, MergeStrategy, Message, Parts, Schema, Shape, Type, definition_name};
pub(crate) use strict::{Findings, WrongType, go_kind, prune};

pub(crate) use duration::duration_problem;
pub(crate) use json::{fits, parse};
pub(crate) use settle::settle;
pub(crate) use structural::prune_structural;
pub(crate) use syntax::complaint;
pub(crate) use time::{TimeForm, canonical as canonical_time};
