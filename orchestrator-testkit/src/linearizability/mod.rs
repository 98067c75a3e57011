//! Whether what concurrent callers of a store saw can be told as one story, call after call.
//!
//! [`linearize`] is the search, over any [`Model`]; [`StoreModel`] is what a store promises; [`check_histories`] makes callers,
//! writes down what they were answered, and looks for the story.

mod model;
mod record;
mod search;

pub use model::{Answer, Call, State, StoreModel};
pub use record::{Plan, check_histories};
pub use search::{CALLS_MAX, Model, NotLinearizable, Recorded, linearize};
