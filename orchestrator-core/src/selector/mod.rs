//! Label and field selectors: their text forms, and whether they match.

mod fields;
mod labels;

pub use fields::{FieldRequirement, FieldSelector};
pub use labels::{LabelRequirement, LabelSelector, Operator};

/// A selector's text makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseSelectorError(pub String);
