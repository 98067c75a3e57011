//! What somebody may do, as a list for people to look at.

use serde_json::{Value, json};

/// All that a user may do in a namespace, as far as an authorizer can tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// What may be done to resources.
    pub resources: Vec<ResourceRule>,
    /// What may be done to paths that are no resources.
    pub paths: Vec<PathRule>,
    /// Why there may be more than is listed; `None` where the lists are complete.
    pub incomplete: Option<String>,
}

/// Verbs on resources. `*` stands for everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceRule {
    /// Such as `get`.
    pub verbs: Vec<String>,
    /// API groups; the core group is empty.
    pub groups: Vec<String>,
    /// Plural resources, with `/` and a subresource where one is meant.
    pub resources: Vec<String>,
    /// The only objects that are meant; all where there is none.
    pub names: Vec<String>,
}

/// Verbs on paths. `*` at the end of a path stands for everything below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathRule {
    /// Such as `get`.
    pub verbs: Vec<String>,
    /// Such as `/healthz` or `/api/*`.
    pub paths: Vec<String>,
}

impl ResourceRule {
    /// A rule for all objects of these resources.
    pub fn new(verbs: &[&str], groups: &[&str], resources: &[&str]) -> Self {
        Self { verbs: owned(verbs), groups: owned(groups), resources: owned(resources), names: Vec::new() }
    }
}

impl PathRule {
    /// A rule for these paths.
    pub fn new<P: Into<String>>(verbs: &[&str], paths: impl IntoIterator<Item = P>) -> Self {
        Self { verbs: owned(verbs), paths: paths.into_iter().map(Into::into).collect() }
    }
}

impl Rules {
    /// The status of a review.
    pub(crate) fn status(&self) -> Value {
        let resources = self.resources.iter().map(|rule| {
            let mut shown = json!({"verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources});
            if !rule.names.is_empty() {
                shown["resourceNames"] = json!(rule.names);
            }
            shown
        });
        let paths = self.paths.iter().map(|rule| json!({"verbs": rule.verbs, "nonResourceURLs": rule.paths}));
        let mut status = json!({
            "resourceRules": resources.collect::<Vec<_>>(), "nonResourceRules": paths.collect::<Vec<_>>(),
            "incomplete": self.incomplete.is_some(),
        });
        if let Some(why) = &self.incomplete {
            status["evaluationError"] = json!(why);
        }
        status
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
