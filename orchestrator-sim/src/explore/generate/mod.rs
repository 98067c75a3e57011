//! Objects of all sorts, drawn by [proptest](https://docs.rs/proptest): of every built-in kind, and of custom ones by their schema.
//!
//! All of them begin with one object that makes sense, and change it in a few places, so that what fails becomes that object again, but for
//! the change that matters. Not all that is drawn makes sense: [`Explorer::creates_any`](super::Explorer::creates_any) draws anew what the
//! server refuses, so that rules of validation, defaults and CEL hold without being told twice.
//!
//! ```
//! use k8s_openapi::api::apps::v1::Deployment;
//! use orchestrator_sim::explore::generate;
//! use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
//!
//! let deployments = generate::built_in::<Deployment>().unwrap();
//! let drawn = deployments.new_tree(&mut TestRunner::deterministic()).unwrap().current();
//! assert_eq!(drawn.metadata.name.as_deref(), Some("example"));
//! ```

mod change;
mod schema;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt::Debug, sync::LazyLock};

use kube_core::CustomResourceExt;
use orchestrator_core::{client::Resource, controller::Kind, yaml};
use proptest::{
    collection::vec,
    strategy::{SBoxedStrategy, Strategy},
};
use serde_json::{Value, json};

use change::Change;

/// Changes of an object at most.
const CHANGES: usize = 6;

/// There is no object to begin with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoExample {
    /// The kind is not built in.
    #[error("{0} is not built in; like() takes an example, custom() the schema of a custom kind")]
    Unknown(String),
    /// The type does not take what the schema describes.
    #[error("{kind} does not take what its schema describes: {problem}")]
    Schema {
        /// The kind.
        kind: String,
        /// What the type said.
        problem: String,
    },
}

/// Objects like an example: with fields left out, other numbers, words and names, and items more and less. What it is called stays.
pub fn like<K: Kind + Debug>(example: &K) -> SBoxedStrategy<K> {
    let example = serde_json::to_value(example).unwrap_or_default();
    trees_like(example).prop_filter_map("not of the type", |tree| serde_json::from_value(tree).ok()).sboxed()
}

fn trees_like(example: Value) -> impl Strategy<Value = Value> {
    vec(Change::any(), 0..=CHANGES).prop_map(move |changes| {
        let mut object = example.clone();
        changes.iter().for_each(|change| change.apply(&mut object));
        object
    })
}

/// Objects of a built-in kind, like [`example`].
///
/// # Errors
/// The kind is not built in.
pub fn built_in<K: Kind + Debug>() -> Result<SBoxedStrategy<K>, NoExample> {
    example().map(|example| like::<K>(&example))
}

/// An object of a built-in kind that says much of what the kind can say. It is called `example`, where the kind lets it, and is in
/// the namespace `default`.
///
/// # Errors
/// The kind is not built in.
pub fn example<K: Kind>() -> Result<K, NoExample> {
    let (version, kind) = (Resource::of::<K>(&()).api_version(), K::kind(&()).into_owned());
    let unknown = NoExample::Unknown(format!("{kind} of {version}"));
    let found = EXAMPLES.get(&(version, kind)).ok_or_else(|| unknown.clone())?;
    serde_json::from_value(found.clone()).map_err(|_| unknown)
}

/// Objects of a custom kind by the schema that is derived for it, with this name; in the namespace `default`, if it is in one. Its definition,
/// `K::crd()`, has to be [given](super::Explorer::given).
///
/// # Errors
/// The type does not take what its schema describes.
pub fn custom<K: Kind + Debug + CustomResourceExt>(name: &str) -> Result<SBoxedStrategy<K>, NoExample> {
    let definition = K::crd();
    let version = K::version(&());
    let mut schemas = definition.spec.versions.iter().filter(|served| served.name == version);
    let schema = schemas.next().and_then(|served| served.schema.as_ref()?.open_api_v3_schema.as_ref());
    let schema = serde_json::to_value(schema).unwrap_or_default();
    let mut object = json!({
        "apiVersion": Resource::of::<K>(&()).api_version(),
        "kind": K::kind(&()),
        "metadata": {"name": name},
        "spec": schema::example(&schema["properties"]["spec"]),
    });
    if definition.spec.scope == "Namespaced" {
        object["metadata"]["namespace"] = "default".into();
    }
    let kind = K::kind(&()).into_owned();
    let example: K =
        serde_json::from_value(object).map_err(|problem| NoExample::Schema { kind, problem: problem.to_string() })?;
    Ok(like(&example))
}

/// By version and kind.
static EXAMPLES: LazyLock<BTreeMap<(String, String), Value>> = LazyLock::new(|| {
    let documents = yaml::parse_all(include_str!("examples.yaml")).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    documents.into_iter().map(|object| ((text(&object["apiVersion"]), text(&object["kind"])), object)).collect()
});
